// Engine.IO by hand: a polling session made of single requests, and a WebSocket whose every frame is seen.
import assert from 'node:assert/strict';
import WebSocket from 'ws';

import { request, start } from './http.mjs';
import { PATIENCE_MS, once, time, within } from './wait.mjs';

/** Between two packets of one polling payload. */
export const SEPARATOR = '\x1e';

/**
 * What was sent to the server at `url` before has been read by it, as far as can be told: no event tells, so it is given
 * 50 ms, and, as the server may stand still meanwhile, as long as it takes to answer something else.
 */
export async function reached(url) {
  await time(50);
  await request(new URL('/other/', url));
}

export class Polling {
  /** Performs the handshake. `url` is the server's, `path` the engine's. */
  static async open(url, path, query = '') {
    const base = `${url}${path}?EIO=4&transport=polling${query}`;
    const answer = await request(base);
    assert.equal(answer.status, 200, answer.text);
    assert.equal(answer.text[0], '0', answer.text);
    const session = new Polling();
    session.handshake = JSON.parse(answer.text.slice(1));
    session.sid = session.handshake.sid;
    session.address = `${base}&sid=${session.sid}`;
    session.webSocketUrl = `${url.replace('http', 'ws')}${path}?EIO=4&transport=websocket&sid=${session.sid}`;
    return session;
  }

  get = () => request(this.address);
  post = (body, headers) => request(this.address, { method: 'POST', body, headers });

  /** A GET that the server has parked. */
  async park() {
    const get = start(this.address, { agent: false });
    await once(get.sent, 'finish');
    await reached(this.address);
    return get;
  }

  /** A GET on its way, perhaps not there yet. */
  startGet = () => start(this.address, { agent: false });

  /** Posts and expects `ok`. */
  async send(...packets) {
    const answer = await this.post(packets.join(SEPARATOR));
    assert.deepEqual([answer.status, answer.text], [200, 'ok']);
  }

  /** Polls, answering pings, until `count` packets that are neither ping nor noop have come. */
  async receive(count) {
    const packets = [];
    while (packets.length < count) {
      const answer = await this.get();
      assert.equal(answer.status, 200, answer.text);
      for (const packet of answer.text.split(SEPARATOR)) {
        if (packet === '2') await this.send('3');
        else if (packet !== '6') packets.push(packet);
      }
    }
    return packets;
  }

  /** Asserts that the server no longer knows the session; `reason` says why it should not. */
  async assertGone(reason) {
    const answer = await this.get();
    assert.deepEqual([answer.status, answer.text && answer.json().code], [400, 1], `${reason}: ${answer.text}`);
  }
}

export class RawSocket {
  /** `pong: false` leaves heartbeats to the test; otherwise they are answered and not shown. */
  constructor(t, url, { pong = true, ...options } = {}) {
    this.frames = [];
    this.waiting = [];
    this.ws = new WebSocket(url.replace(/^http/, 'ws'), { perMessageDeflate: false, ...options });
    this.ws.on('message', (data, isBinary) => {
      const frame = isBinary ? data : data.toString('utf8');
      if (pong && frame === '2') return this.ws.send('3');
      this.frames.push(frame);
      this.waiting.shift()?.();
    });
    this.ws.on('error', (error) => (this.error = error));
    this.opened = new Promise((resolve, reject) => {
      this.ws.once('open', resolve);
      this.ws.once('close', () => reject(new Error(`refused: ${this.error?.message}`)));
    });
    this.opened.catch(() => {});
    this.ended = new Promise((resolve) => {
      this.ws.once('close', (code, reason) => {
        this.closeEvent = { code, reason: reason.toString() };
        this.waiting.splice(0).forEach((wake) => wake());
        resolve(this.closeEvent);
      });
    });
    t.after(() => this.ws.terminate());
  }

  /** The socket once it is open. */
  static async open(t, url, options) {
    const socket = new RawSocket(t, url, options);
    await within(socket.opened, `the WebSocket ${url}`);
    return socket;
  }

  send(...frames) {
    for (const frame of frames) this.ws.send(frame);
  }

  /** The next frame: a string or a Buffer. */
  async next(ms = PATIENCE_MS) {
    if (this.frames.length === 0) {
      assert.equal(this.closeEvent, undefined, 'the socket is closed');
      await within(new Promise((resolve) => this.waiting.push(resolve)), 'a frame', ms);
      assert.ok(this.frames.length > 0, `closed instead of a frame: ${JSON.stringify(this.closeEvent)}`);
    }
    return this.frames.shift();
  }

  async expect(...frames) {
    for (const frame of frames) assert.deepEqual(await this.next(), frame);
  }

  /** `{ code, reason }` of the close; the frames before it must have been taken. */
  async closed(ms) {
    const event = await within(this.ended, 'the end of the WebSocket', ms);
    assert.deepEqual(this.frames, [], 'frames before the close');
    return event;
  }
}

/** A WebSocket-only Engine.IO session, its handshake taken. */
export async function openEngine(t, url, path, options) {
  const socket = await RawSocket.open(t, `${url}${path}?EIO=4&transport=websocket`, options);
  const packet = await socket.next();
  assert.equal(packet[0], '0', packet);
  socket.handshake = JSON.parse(packet.slice(1));
  return socket;
}

/** The same, connected to namespace `/` of a Socket.IO server; `greeting` events come right after the CONNECT. */
export async function openSocketIo(t, url, { greeting = 1, ...options } = {}) {
  const socket = await openEngine(t, url, '/socket.io/', options);
  socket.send('40');
  const packet = await socket.next();
  assert.match(packet, /^40\{/);
  socket.id = JSON.parse(packet.slice(2)).sid;
  socket.greeting = [];
  while (greeting-- > 0) socket.greeting.push(await socket.next());
  return socket;
}
