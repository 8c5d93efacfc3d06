// One device of a user in a story: a stock client that talks, is cut, comes back and writes down all that it sees.
import http from 'node:http';
import { setTimeout as pause } from 'node:timers/promises';

import { RELEASES, TRANSPORTS } from '../clients.mjs';
import { chance } from './random.mjs';

/** What devices do, and how often. The Python side has the same. */
export const HABITS = {
  say: 40,
  sayAndCut: 4,
  sayTwice: 4,
  edit: 5,
  remove: 4,
  react: 8,
  type: 6,
  read: 6,
  browse: 5,
  leave: 6,
  join: 10,
  rejoin: 2,
};
/** A connection that lives, and no ack for so long: a fault, on the slowest machine. */
const SILENCE_MS = 90_000;
const EMOJI = ['👍', '🎉', '❤️'];
const LOGGED = ['chat_message', 'message_edited', 'message_deleted', 'message_reaction', 'meeting_update'];

/**
 * Connections that can be cut from outside. One for each request: stock clients silently repeat a request that broke on
 * a connection that was used before, and what the first answer held would be missing.
 */
class Cable extends http.Agent {
  open = new Set();

  constructor() {
    super({ keepAlive: false });
  }

  createConnection(options, connected) {
    const socket = super.createConnection(options, connected);
    this.open.add(socket);
    socket.once('close', () => this.open.delete(socket));
    return socket;
  }

  /** `reset`: by RST instead of FIN. */
  cut(reset) {
    for (const socket of this.open) {
      if (reset) socket.resetAndDestroy();
      else socket.destroy();
    }
  }
}

export class Device {
  records = [];
  /** `{ position, isMember, upto, isBusy }` by meeting: what the application knows. */
  rooms = new Map();
  /** Messages without an ack yet, by client_id. */
  unacked = new Map();
  /** Messages that were seen lately, by meeting. */
  seen = new Map();
  pending = new Map();
  asks = 0;
  messages = 0;
  acts = 0;
  isConnected = false;
  isStopping = false;

  /** `isQuiet`: only listens, in all meetings, and is not cut. */
  constructor({ name, user, url, token, release, transport, seed, meetings, users, limits, isQuiet = false }) {
    Object.assign(this, { name, user, meetings, users, limits, isQuiet, transport, release });
    this.chance = chance(seed, name);
    this.cable = new Cable();
    const count = isQuiet ? meetings.length : Math.min(this.chance.between(2, 5), meetings.length);
    while (this.rooms.size < count) this.room(isQuiet ? meetings[this.rooms.size] : this.chance.pick(meetings));
    for (const room of this.rooms.values()) room.isWanted = true;
    this.socket = RELEASES[release].io(url, {
      transports: TRANSPORTS[transport],
      forceNew: true,
      autoConnect: false,
      auth: { token },
      agent: this.cable,
      reconnectionDelay: 50,
      reconnectionDelayMax: 400,
    });
    this.socket.on('connect', () => this.connected());
    this.socket.on('disconnect', (reason) => this.gone(reason));
    this.socket.on('connect_error', (error) => this.refused(error));
    this.socket.onAny((event, payload) => this.heard(event, payload));
  }

  room(meeting) {
    if (!this.rooms.has(meeting)) this.rooms.set(meeting, { position: undefined, isMember: false, upto: undefined });
    return this.rooms.get(meeting);
  }

  connected() {
    this.isConnected = true;
    this.records.push({ connected: this.socket.id });
    this.resuming = this.resume();
  }

  gone(reason) {
    this.isConnected = false;
    this.records.push({ gone: reason });
    for (const room of this.rooms.values()) Object.assign(room, { isMember: false, upto: undefined });
    const pending = [...this.pending.values()];
    this.pending.clear();
    for (const lost of pending) lost(undefined);
  }

  refused({ message, data }) {
    // Without data the connection broke before the answer.
    if (data === undefined) return;
    this.records.push({ refused: { message, data } });
    setTimeout(() => this.socket.connect(), 500);
  }

  /** The answer, or `undefined` if the connection was lost before. `take` sees it before any later event. */
  ask(event, payload, take = () => {}) {
    if (!this.socket.connected) return Promise.resolve(undefined);
    const n = ++this.asks;
    // A copy: positions move on.
    const asked = structuredClone(payload);
    this.records.push({ ask: event, n, payload: asked });
    return new Promise((resolve) => {
      const timer = setTimeout(() => {
        this.records.push({ silence: event, n });
        resolve(undefined);
      }, SILENCE_MS);
      this.pending.set(n, (answer) => {
        clearTimeout(timer);
        resolve(answer);
      });
      this.socket.emit(event, asked, (answer) => {
        const done = this.pending.get(n);
        this.pending.delete(n);
        this.records.push({ ack: n, answer });
        if (answer?.ok) take(answer);
        done?.(answer);
      });
    });
  }

  heard(event, payload) {
    // After a disconnect, old clients keep what their dying connection brings, and tell it before the next connect. An
    // application that has taken leave of a connection does not want it.
    if (!this.isConnected) return;
    this.records.push({ event, payload });
    if (!LOGGED.includes(event)) return;
    const room = this.room(payload.meeting_id);
    // Behind a hole it waits for the pages.
    if (room.upto === undefined) room.position = { epoch: payload.epoch, seq: payload.seq };
    else room.live = payload.seq;
    this.note({ event, ...payload });
  }

  note({ event, id, meeting_id, sender }) {
    if (event !== 'chat_message') return;
    const seen = this.seen.get(meeting_id) ?? [];
    this.seen.set(meeting_id, [...seen.slice(-30), { id, sender }]);
  }

  /** Joins, with all that was seen before, and reads what the join does not bring. True if it is in the meeting. */
  async join(meeting, { limit, isNew = false } = {}) {
    const room = this.room(meeting);
    const since = isNew ? undefined : room.position;
    const ack = await this.ask(
      'join_room',
      { meeting_id: meeting, ...(since && { since }), ...(limit !== undefined && { limit }) },
      (ack) => {
        for (const event of ack.events ?? []) this.note(event);
        if (room.isMember) return;
        room.isMember = true;
        if (ack.recovered === false) Object.assign(room, { upto: ack.seq, live: ack.seq });
        else room.position = { epoch: ack.epoch, seq: ack.seq };
      },
    );
    if (!ack?.ok) return false;
    while (room.upto !== undefined) {
      const read = await this.ask(
        'get_history',
        { meeting_id: meeting, after_seq: room.position.seq, limit: this.chance.between(20, 100) },
        (page) => {
          if (room.upto === undefined) return;
          const last = page.first_seq > room.upto ? room.upto : Math.min(page.items.at(-1)?.seq ?? 0, room.upto);
          room.position = { epoch: page.epoch, seq: Math.max(room.position.seq, last) };
          if (room.position.seq < room.upto) return;
          room.position.seq = room.live;
          room.upto = undefined;
        },
      );
      if (!read) return false;
    }
    return room.isMember;
  }

  /** One thing at a time with a meeting's membership. */
  async alone(meeting, act) {
    const room = this.room(meeting);
    if (room.isBusy) return;
    room.isBusy = true;
    try {
      await act(room);
    } finally {
      room.isBusy = false;
    }
  }

  /** After a connect: into the meetings again, with since, and what was not acked is sent again. */
  async resume() {
    const { id } = this.socket;
    for (const [meeting, room] of this.rooms) {
      while (room.isBusy) await pause(5);
      if (this.socket.id !== id || !this.socket.connected) return;
      const limit = this.limits && this.chance.happens(0.2) ? this.chance.between(0, 20) : undefined;
      if (room.isWanted && !room.isMember) await this.alone(meeting, () => this.join(meeting, { limit }));
    }
    for (const message of [...this.unacked.values()]) {
      if (this.room(message.meeting_id).isMember) void this.send(message);
    }
  }

  send(message) {
    this.unacked.set(message.client_id, message);
    return this.ask('chat_message', message, () => this.unacked.delete(message.client_id)).then((answer) => {
      // Refused is answered, too.
      if (answer) this.unacked.delete(message.client_id);
      return answer;
    });
  }

  async run() {
    this.socket.connect();
    if (this.isQuiet) return;
    const cutting = this.beCut();
    let away = 0;
    while (!this.isStopping) {
      await pause(this.chance.between(20, 500));
      if (this.socket.connected) {
        away = 0;
        await this.act();
        this.acts++;
      } else if (++away > 60) this.again();
    }
    await cutting;
  }

  /** Gives up on a client that does not come back by itself. */
  again() {
    this.socket.disconnect();
    this.socket.connect();
  }

  async beCut() {
    while (!this.isStopping) {
      const { acts } = this;
      await pause(this.chance.between(1000, 7000));
      // On a slow machine nobody would get to anything between two cuts. Some come at any moment nevertheless.
      const isPatient = this.chance.happens(0.85);
      while (isPatient && this.acts === acts && !this.isStopping) await pause(50);
      if (this.isStopping) return;
      await this.cut(this.chance.weighted({ destroy: 5, reset: 5, polite: 3 }));
    }
  }

  async cut(how) {
    this.records.push({ cut: how });
    if (how !== 'polite') return this.cable.cut(how === 'reset');
    this.socket.disconnect();
    await pause(this.chance.between(0, 1500));
    this.socket.connect();
  }

  joinedRooms() {
    return [...this.rooms].filter(([, room]) => room.isMember && !room.isBusy).map(([meeting]) => meeting);
  }

  message(meeting_id) {
    const { chance } = this;
    const n = ++this.messages;
    const target = chance.pick(this.seen.get(meeting_id) ?? []);
    return {
      meeting_id,
      text: `${this.name} says ${n} ${'é漢😀 <b>'.repeat(chance.between(0, 6))}`,
      client_id: `${this.name}-${n}`,
      ...(chance.happens(0.03) && { mentions: [chance.pick(this.users)] }),
      ...(chance.happens(0.1) && { meta: { n, colour: 'red', more: [null, { a: 1 }] } }),
      ...(target && chance.happens(0.03) && { reply_to: target.id }),
    };
  }

  async act() {
    const { chance } = this;
    const meeting = chance.pick(this.joinedRooms());
    const habit = meeting ? chance.weighted(HABITS) : 'join';
    const seen = this.seen.get(meeting) ?? [];
    // Nearly always something of one's own; somebody else's is refused.
    const own = seen.filter(({ sender }) => sender === this.user);
    const { id } = chance.pick(chance.happens(0.95) ? own : seen) ?? {};
    switch (habit) {
      case 'say': {
        const answer = this.send(this.message(meeting));
        return chance.happens(0.5) ? answer : undefined;
      }
      case 'sayAndCut':
        void this.send(this.message(meeting));
        await pause(chance.between(0, 8));
        return this.cut(chance.pick(['destroy', 'reset']));
      case 'sayTwice': {
        const message = this.message(meeting);
        const first = this.send(message);
        if (chance.happens(0.5)) await first;
        return this.send(message);
      }
      case 'edit':
        return (
          id && this.ask('edit_message', { meeting_id: meeting, id, text: `edited by ${this.name} ${chance.next()}` })
        );
      case 'remove':
        return id && this.ask('delete_message', { meeting_id: meeting, id });
      case 'react': {
        const target = chance.pick(seen);
        const emoji = chance.pick(EMOJI);
        return target && this.ask('react', { meeting_id: meeting, id: target.id, emoji, remove: chance.happens(0.3) });
      }
      case 'type':
        return this.ask('typing', { meeting_id: meeting, active: chance.happens(0.7) });
      case 'read': {
        const { position } = this.room(meeting);
        return position && this.ask('mark_read', { meeting_id: meeting, seq: chance.between(0, position.seq) });
      }
      case 'browse': {
        const { position } = this.room(meeting);
        const from = chance.pick([
          {},
          { before_seq: chance.between(1, position.seq + 1) },
          { after_seq: chance.between(0, position.seq) },
        ]);
        return this.ask('get_history', { meeting_id: meeting, limit: chance.between(1, 100), ...from });
      }
      case 'leave':
        // A message on its way may come too late: it would be refused.
        if ([...this.unacked.values()].some(({ meeting_id }) => meeting_id === meeting)) return undefined;
        return this.alone(meeting, (room) => {
          room.isWanted = false;
          return this.ask('leave_room', { meeting_id: meeting }, () => (room.isMember = false));
        });
      case 'join': {
        const other = chance.pick(this.meetings);
        const isNew = chance.happens(0.1);
        const limit =
          isNew || this.room(other).position === undefined ? chance.pick([undefined, 0, 10, 300]) : undefined;
        return this.alone(other, async (room) => {
          if (room.isMember) return;
          room.isWanted = true;
          await this.join(other, { isNew, limit });
        });
      }
      default:
        return this.alone(meeting, () => this.join(meeting));
    }
  }

  isThere() {
    const rooms = [...this.rooms.values()].filter(({ isWanted }) => isWanted);
    return (
      this.socket.connected && rooms.every(({ isMember, upto, isBusy }) => isMember && upto === undefined && !isBusy)
    );
  }

  /** The end of the story, first half: connected, in the meetings, and all that was said is acked. */
  async gather() {
    for (let n = 1; !this.isThere() || this.unacked.size > 0; n++) {
      if (n % 200 === 0 && !this.socket.connected) this.again();
      else if (n % 20 === 0 && this.socket.connected) await this.resume();
      await pause(50);
    }
  }

  /** Second half, when all have gathered: what was said must be here before the answer. */
  async settle() {
    for (let isSettled = false; !isSettled;) {
      await this.gather();
      const isThere = () => this.isThere() && this.records.push({ final: true }) > 0;
      await this.ask('message', 'settled', () => (isSettled = isThere()));
    }
  }

  /** Goes for good. */
  leave() {
    this.socket.io.reconnection(false);
    if (this.chance.happens(0.5)) this.cable.cut(true);
    else this.socket.disconnect();
  }
}
