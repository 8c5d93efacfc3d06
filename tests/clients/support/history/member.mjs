// A client as its makers would write it: it keeps its place in each meeting, comes back to another instance with
// `since`, reads by pages what a join did not bring, and sends again what was not acked. All of it is written down.
import { setTimeout as pause } from 'node:timers/promises';

import { chance } from '../story/random.mjs';
import { RawLink, StockLink } from './link.mjs';

const LOGGED = new Set(['chat_message', 'message_edited', 'message_deleted', 'message_reaction', 'meeting_update']);
/** What comes all the time and has nothing to do with a history. */
const PASSING = new Set(['presence_update', 'typing', 'read_receipt', 'unread', 'response', 'auth_expiring']);
/** What may be tried again. */
const AGAIN = new Set(['unavailable', 'draining', 'rate_limited', 'internal']);
/** Longest wait before the next try, whatever a server says: a test has no time. */
const AGAIN_MAX_MS = 1000;
/** Most messages that wait for their ack. */
const UNACKED_MAX = 40;
/** As long as that without a `ready`, and the client tries another instance. */
const CONNECT_MS = 5000;

export class Member {
  /** `{ epoch, seq, isMember, upto, live }` by meeting: what the application knows. */
  rooms = new Map();
  unacked = new Map();
  messages = 0;
  isStopped = false;
  timers = new Set();

  /**
   * `urls()`: `{ name, url }` of the instances that one may go to. `home`: where it goes first. `isPatient`: waits for
   * an ack as long as the connection stands; others leave after `patienceMs`. `isPolite`: leaves a draining instance
   * when it is told to; others when they are closed.
   */
  constructor({
    name,
    token,
    meetings,
    urls,
    home,
    history,
    seed,
    kind,
    patienceMs = 8000,
    isPatient,
    isPolite,
    isLoyal,
  }) {
    Object.assign(this, { name, token, urls, home, history, kind, patienceMs, isPatient, isPolite, isLoyal });
    this.chance = chance(seed, name);
    for (const meeting of meetings) this.rooms.set(meeting, { isMember: false });
  }

  note(op, fields) {
    return this.history.note(op, { client: this.name, ...fields });
  }

  /** Lives until it is stopped. */
  async run() {
    while (!this.isStopped) {
      const instance = this.choose();
      if (instance) await this.visit(instance);
      await pause(this.chance.between(20, 150));
    }
  }

  /** Home first; after that somewhere else than where it was, if there is such a place. */
  choose() {
    const all = this.urls();
    if (this.at === undefined || this.isLoyal)
      return all.find(({ name }) => name === this.home) ?? this.chance.pick(all);
    const others = all.filter(({ name }) => name !== this.at);
    return this.chance.pick(others.length > 0 ? others : all);
  }

  visit({ name, url }) {
    this.at = name;
    return new Promise((resolve) => {
      const Link = this.kind.isRaw ? RawLink : StockLink;
      let timer;
      const link = new Link({
        url,
        token: this.token,
        ...this.kind,
        heard: (event, payload) => {
          if (event === 'ready') {
            clearTimeout(timer);
            this.connected(payload);
          } else this.heard(event, payload);
        },
        ended: (reason) => {
          clearTimeout(timer);
          this.gone(reason);
          resolve();
        },
      });
      this.link = link;
      timer = setTimeout(() => link.close(), CONNECT_MS);
    });
  }

  connected(ready) {
    this.isConnected = true;
    this.ready = ready;
    this.note('connected', { to: this.at });
    for (const meeting of this.rooms.keys()) this.join(meeting);
  }

  gone(reason) {
    if (this.isConnected) this.note('gone', { reason });
    this.isConnected = false;
    this.link = undefined;
    for (const timer of this.timers) clearTimeout(timer);
    this.timers.clear();
    for (const room of this.rooms.values()) {
      // What waited behind a hole is thrown away.
      Object.assign(room, { isMember: false, upto: undefined, live: undefined });
    }
    for (const message of this.unacked.values()) message.isAsked = false;
  }

  /** Asks on this connection; impatient clients leave it if there is no answer. */
  ask(event, payload, answered) {
    const { link } = this;
    const timer = this.isPatient ? undefined : this.later(this.patienceMs, () => link.close());
    link.ask(event, payload, (answer) => {
      this.forget(timer);
      if (this.link === link) answered(answer);
    });
  }

  /** In `ms`, if the connection still stands. */
  later(ms, act) {
    const timer = setTimeout(() => {
      this.timers.delete(timer);
      act();
    }, ms);
    this.timers.add(timer);
    return timer;
  }

  forget(timer) {
    clearTimeout(timer);
    this.timers.delete(timer);
  }

  again({ retry_after_ms = 200 } = {}, act) {
    this.later(Math.min(Math.max(retry_after_ms, 20), AGAIN_MAX_MS), act);
  }

  join(meeting) {
    const room = this.rooms.get(meeting);
    const since = room.epoch && { epoch: room.epoch, seq: room.seq };
    this.note('joining', { meeting, since });
    this.ask('join_room', { meeting_id: meeting, ...(since && { since }) }, (ack) => {
      if (!ack.ok) {
        if (!AGAIN.has(ack.error.code)) this.note('told', { event: 'join refused', payload: ack.error });
        this.again(ack.error, () => this.join(meeting));
        return;
      }
      this.note('joined', { meeting, ack });
      Object.assign(room, { isMember: true, live: ack.seq });
      if (ack.recovered !== false) Object.assign(room, { epoch: ack.epoch, seq: ack.seq });
      else this.fill(meeting, ack, ack.reason === 'epoch' ? ack.first_seq - 1 : room.seq, ack.seq);
      for (const message of this.unacked.values()) if (message.meeting === meeting) this.transmit(message);
    });
  }

  /** Reads the events after `seq` up to `upto`, then goes on with what came live meanwhile. */
  fill(meeting, { epoch, first_seq }, seq, upto) {
    const room = this.rooms.get(meeting);
    Object.assign(room, { epoch, seq: Math.max(seq, first_seq - 1), upto, live: Math.max(upto, room.live ?? 0) });
    this.page(meeting, room, upto);
  }

  page(meeting, room, upto) {
    if (room.seq >= upto) {
      Object.assign(room, { seq: room.live, upto: undefined });
      return;
    }
    const { epoch, seq } = room;
    this.ask('get_history', { meeting_id: meeting, after_seq: seq, epoch, limit: 100 }, (ack) => {
      // Another resync came meanwhile.
      if (room.epoch !== epoch || room.upto !== upto) return;
      if (!ack.ok) {
        // `conflict`: the epoch has changed again, and it will be told.
        if (ack.error.code !== 'conflict') this.again(ack.error, () => this.page(meeting, room, upto));
        return;
      }
      this.note('page', { meeting, after: seq, ack });
      room.seq = Math.min(upto, Math.max(seq, ack.first_seq - 1, ack.items.at(-1)?.seq ?? 0));
      this.page(meeting, room, upto);
    });
  }

  heard(event, payload) {
    if (LOGGED.has(event)) {
      this.note('live', { event: { event, ...payload } });
      const room = this.rooms.get(payload.meeting_id);
      if (!room) return;
      room.live = payload.seq;
      if (room.upto === undefined) Object.assign(room, { epoch: payload.epoch, seq: payload.seq });
    } else if (event === 'resync') {
      this.note('resync', { resync: payload });
      const room = this.rooms.get(payload.meeting_id);
      if (!room?.isMember) return;
      const isAnew = payload.reason === 'epoch_changed';
      room.live = isAnew ? 0 : room.live;
      this.fill(payload.meeting_id, payload, isAnew ? payload.first_seq - 1 : room.seq, payload.top_seq);
    } else if (!PASSING.has(event)) {
      this.note('told', { event, payload });
      if (event === 'server_draining' && this.isPolite) {
        const { link } = this;
        this.later(payload.reconnect_after_ms, () => link.close());
      }
    }
  }

  /** Says something, unless too much waits already. */
  say(meeting, more = '') {
    if (this.unacked.size >= UNACKED_MAX) return undefined;
    const client_id = `${this.name}-${++this.messages}`;
    const message = { meeting, client_id, text: `${client_id} says é漢😀 <b> ${more}` };
    message.acked = new Promise((resolve) => (message.resolve = resolve));
    this.unacked.set(client_id, message);
    if (this.rooms.get(meeting).isMember) this.transmit(message);
    return message;
  }

  transmit(message) {
    const { meeting, client_id, text } = message;
    if (message.isAsked || !this.unacked.has(client_id)) return;
    message.isAsked = true;
    this.note('sent', { meeting, client_id, text });
    this.ask('chat_message', { meeting_id: meeting, text, client_id }, (ack) => {
      message.isAsked = false;
      if (ack.ok) {
        const { id, seq, epoch, ts, duplicate } = ack;
        this.note('acked', { meeting, client_id, ack: { id, seq, epoch, ts, duplicate } });
        this.unacked.delete(client_id);
        message.resolve(ack);
        return;
      }
      const isFinal = !AGAIN.has(ack.error.code);
      this.note('refused', { meeting, client_id, code: ack.error.code, error: ack.error, isFinal });
      if (isFinal) this.unacked.delete(client_id);
      else this.again(ack.error, () => this.transmit(message));
    });
  }

  /** In all its meetings, with nothing left to be read or acked. */
  get isThere() {
    const rooms = [...this.rooms.values()];
    return (
      this.isConnected && rooms.every(({ isMember, upto }) => isMember && upto === undefined) && this.unacked.size === 0
    );
  }

  /** Whether it has a meeting's log up to its end, as `get_history` has told it. */
  has(meeting, { epoch, top_seq }) {
    const room = this.rooms.get(meeting);
    return !room || (room.epoch === epoch && room.seq === top_seq);
  }

  stop() {
    this.isStopped = true;
    this.link?.close();
  }
}
