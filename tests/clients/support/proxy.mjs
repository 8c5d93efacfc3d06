// What lies between a service and Redis: a TCP proxy that may cut, go silent, lead elsewhere, or spoil one message.
import { once as happens } from 'node:events';
import { connect, createServer } from 'node:net';

import { Reader } from './resp.mjs';
import { within } from './wait.mjs';

/** Which connections: those that subscribed, and the others. */
export const SUBSCRIBERS = (connection) => connection.isSubscriber;
export const COMMANDS = (connection) => !connection.isSubscriber;
export const ALL = () => true;

const SUBSCRIBE = /^[ps]?subscribe$/i;
const PUSHED = new Set(['message', 'smessage']);

/** One connection through the proxy: `near` to whoever connected, `far` to Redis. */
class Connection {
  isSubscriber = false;
  isHalted = false;

  constructor(proxy, near) {
    this.proxy = proxy;
    this.near = near;
    this.far = connect({ port: proxy.port_of_redis, host: '127.0.0.1', noDelay: true });
    this.asked = new Reader();
    this.answered = new Reader();
    near.setNoDelay(true);
    near.on('data', (chunk) => this.outward(chunk));
    this.far.on('data', (chunk) => this.inward(chunk));
    for (const [from, to] of [
      [near, this.far],
      [this.far, near],
    ]) {
      from.on('error', () => {});
      from.on('end', () => to.end());
      from.on('close', () => this.end());
      from.on('drain', () => this.isHalted || to.resume());
    }
  }

  /** To Redis. */
  outward(chunk) {
    if (!this.isSubscriber && !this.proxy.isRaw) {
      this.isSubscriber = this.asked.push(chunk).some(({ value }) => SUBSCRIBE.test(String(value?.[0])));
    }
    if (!this.far.write(chunk)) this.near.pause();
  }

  /** From Redis. Whole values only, so that one of them can be spoiled. */
  inward(chunk) {
    if (this.proxy.isRaw) {
      if (!this.near.write(chunk)) this.far.pause();
      return;
    }
    for (const { value, bytes } of this.answered.push(chunk)) {
      for (const out of this.proxy.spoil(this, value, bytes)) {
        if (!this.near.write(out)) this.far.pause();
      }
    }
  }

  halt() {
    this.isHalted = true;
    this.near.pause();
    this.far.pause();
  }

  release() {
    this.isHalted = false;
    this.near.resume();
    this.far.resume();
  }

  end(reset = false) {
    this.proxy.open.delete(this);
    for (const socket of [this.near, this.far]) {
      // One that is ending cannot be reset: Node would never close it.
      if (reset && !socket.connecting && !socket.writableEnded) socket.resetAndDestroy();
      else socket.destroy();
    }
  }
}

export class Proxy {
  open = new Set();
  /** New connections are silent from the start, as to a host that has vanished. */
  isSilent = false;

  /** In front of the Redis at `port`. `isRaw`: for what is not answers to commands, such as replication. */
  static async start(port, { isRaw = false } = {}) {
    const proxy = new Proxy();
    proxy.isRaw = isRaw;
    proxy.port_of_redis = port;
    proxy.listener = createServer({ pauseOnConnect: true }, (near) => proxy.accept(near));
    proxy.listener.listen(0, '127.0.0.1');
    await happens(proxy.listener, 'listening');
    proxy.port = proxy.listener.address().port;
    return proxy;
  }

  get url() {
    return `redis://127.0.0.1:${this.port}`;
  }

  accept(near) {
    const connection = new Connection(this, near);
    this.open.add(connection);
    if (this.isSilent) connection.halt();
    else near.resume();
  }

  connections(which = ALL) {
    return [...this.open].filter(which);
  }

  /** New connections lead to the Redis at `port`; those there are stay. */
  switchTo(port) {
    this.port_of_redis = port;
  }

  /** Ends connections, by RST. */
  cut(which = ALL) {
    for (const connection of this.connections(which)) connection.end(true);
  }

  /** Half-open: connections stay, and nothing goes through. What is said meanwhile goes on at `release`. */
  halt(which = ALL) {
    const halted = this.connections(which);
    for (const connection of halted) connection.halt();
    return halted.length;
  }

  release() {
    this.isSilent = false;
    for (const connection of this.open) if (connection.isHalted) connection.release();
  }

  /**
   * Spoils the next pub/sub message on a channel that `isMeant`: `drop`, `duplicate`, or `swap` with the next one of the
   * same channel. Answers `{ channel, payload }` of the message when it is done.
   */
  tamper(how, isMeant = () => true) {
    let done;
    const happened = new Promise((resolve) => (done = resolve));
    this.fault = { how, isMeant, done };
    return within(happened, `a message to ${how}`);
  }

  /** What goes on to the service in place of one value from Redis. */
  spoil(connection, value, bytes) {
    const { fault } = this;
    if (!fault || !connection.isSubscriber || !PUSHED.has(String(value?.[0]))) return [bytes];
    const channel = String(value[1]);
    const { held } = fault;
    if (held) {
      if (held.connection !== connection || held.channel !== channel) return [bytes];
      this.finish(held);
      return [bytes, held.bytes];
    }
    if (!fault.isMeant(channel)) return [bytes];
    const message = { connection, channel, payload: Buffer.from(value[2]), bytes: Buffer.from(bytes) };
    if (fault.how === 'swap') {
      fault.held = message;
      return [];
    }
    this.finish(message);
    return fault.how === 'drop' ? [] : [bytes, bytes];
  }

  finish({ channel, payload }) {
    const { done } = this.fault;
    this.fault = undefined;
    done({ channel, payload });
  }

  async stop() {
    this.listener.close();
    for (const connection of this.connections()) connection.end();
    if (this.listener.listening) await happens(this.listener, 'close');
  }
}
