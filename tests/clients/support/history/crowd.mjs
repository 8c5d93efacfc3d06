// Many members in some meetings, spread over all instances, who talk at a rate; and what is left of it at the end.
import assert from 'node:assert/strict';
import { setTimeout as pause } from 'node:timers/promises';

import { history as pagesOf } from '../chat.mjs';
import { RELEASES, TRANSPORTS, join } from '../clients.mjs';
import { chance } from '../story/random.mjs';
import { token } from '../token.mjs';
import { ask, eventually } from '../wait.mjs';
import { Member } from './member.mjs';
import { History } from './record.mjs';

/** Bounds, in ms: until all have acks and are in their meetings, and until all have all. */
const GATHER_MS = 60_000;
const CATCH_UP_MS = 60_000;

const numbers = (count) => Array.from({ length: count }, (_, n) => n);
const two = (n) => String(n).padStart(2, '0');

export class Crowd {
  history = new History();
  members = [];
  said = 0;
  /** Who talks. */
  isTalker = () => true;

  /**
   * `count` members, the last `raw` of them by hand, each in `each` of the `meetings` (a count). `settings` go to every
   * member, or are a function of their number.
   */
  constructor(
    cluster,
    { count = 30, raw = 3, meetings = 5, each = 1, seed = Date.now() % 2 ** 32, settings = {}, claims } = {},
  ) {
    this.cluster = cluster;
    this.seed = seed;
    this.chance = chance(seed, 'crowd');
    this.meetings = numbers(meetings).map((n) => `meeting-${n}`);
    const releases = Object.keys(RELEASES);
    const transports = Object.keys(TRANSPORTS);
    for (const n of numbers(count)) {
      const name = `m-${two(n)}`;
      const kind = {
        isRaw: n >= count - raw,
        release: releases[n % releases.length],
        // Long polling costs the test more than the others.
        transport: n % 10 === 9 ? transports[0] : transports[1 + (n % 2)],
      };
      const member = new Member({
        name,
        token: token({ sub: name, name: `Name of ${name}`, ...claims }),
        meetings: numbers(each).map((m) => this.meetings[(n + m) % meetings]),
        urls: () => cluster.open(),
        // Not by the same number as the meetings: each meeting has members on each instance.
        home: cluster.names[Math.floor(n / meetings) % cluster.names.length],
        history: this.history,
        seed,
        kind,
        isPatient: n % 2 === 0,
        isPolite: n % 4 < 2,
        ...(typeof settings === 'function' ? settings(n) : settings),
      });
      this.members.push(member);
    }
  }

  /** Everybody is in their meetings. */
  async enter() {
    this.running = this.members.map((member) => member.run());
    await this.gather('to enter');
    return this;
  }

  /** Begins to talk, `rate` messages a second of all together. */
  talk(rate) {
    this.rate = rate;
    this.talking ??= this.keepTalking();
  }

  async keepTalking() {
    let last = performance.now();
    let due = 0;
    while (this.rate > 0) {
      await pause(10);
      const now = performance.now();
      // After a stall of this process nobody makes up for what was not said.
      due = Math.min(due + ((now - last) * this.rate) / 1000, this.rate / 4);
      last = now;
      const talkers = this.members.filter(this.isTalker);
      for (; due >= 1 && talkers.length > 0; due--) this.say(this.chance.pick(talkers));
    }
    this.talking = undefined;
  }

  /** One message of a member. */
  say(member, meeting = this.chance.pick([...member.rooms.keys()])) {
    const message = member.say(meeting);
    if (message) this.said++;
    return message;
  }

  async silence() {
    this.rate = 0;
    await this.talking;
  }

  /** `count` messages more are acked, of members that `isMeant`. */
  async acked(count, { isMeant = () => true, ms = 30_000 } = {}) {
    const acks = () => this.history.of('acked', ({ client }) => isMeant(this.member(client))).length;
    const wanted = acks() + count;
    await eventually(() => assert.ok(acks() >= wanted, `${wanted - acks()} of ${count} acks are missing`), ms);
  }

  /** `count` tries more are refused with `code`; answers the errors. */
  async refused(count, code, ms = 30_000) {
    const refusals = () => this.history.of('refused', ({ error }) => error.code === code);
    const known = refusals().length;
    const missing = () => count - (refusals().length - known);
    await eventually(() => assert.ok(missing() <= 0, `${missing()} of ${count} refusals "${code}" are missing`), ms);
    return refusals()
      .slice(known)
      .map(({ error }) => error);
  }

  member(name) {
    return this.members.find((member) => member.name === name);
  }

  /** Members at an instance. */
  at(instance) {
    return this.members.filter((member) => member.isConnected && member.at === instance);
  }

  async gather(what, ms = GATHER_MS) {
    await eventually(() => {
      const absent = this.members.filter(({ isThere }) => !isThere);
      const told = absent.slice(0, 5).map(({ name, at, isConnected, unacked, rooms }) => {
        return `${name} at ${at} ${isConnected} ${unacked.size} ${JSON.stringify([...rooms])}`;
      });
      assert.equal(absent.length, 0, `${absent.length} members have not come ${what}: ${told.join('; ')}`);
    }, ms);
  }

  /**
   * The end: nobody talks, everything is acked, one last message in each meeting shows what is missing, and everybody
   * has all. Whatever does not come to its end is for the check to tell.
   */
  async settle(t) {
    await this.silence();
    const late = [];
    await this.gather('to the end').catch((error) => late.push(error.message));
    const last = this.meetings.map((meeting) => {
      const member = this.members.find((one) => one.isThere && one.rooms.has(meeting));
      return member?.say(meeting, 'at last')?.acked;
    });
    await Promise.race([Promise.all(last), pause(10_000, undefined, { ref: false })]);
    const logs = await this.look(t);
    await eventually(() => {
      const behind = this.members.filter((member) => !logs.every(({ meeting, ack }) => member.has(meeting, ack)));
      assert.equal(behind.length, 0, `behind: ${behind.map(({ name, at }) => `${name} at ${at}`).join(', ')}`);
    }, CATCH_UP_MS).catch((error) => late.push(error.message));
    for (const { name } of this.members) this.history.note('final', { client: name });
    await this.leave();
    return late;
  }

  /** The logs at the end, asked of any instance. */
  async look(t) {
    const [{ url }] = this.cluster.open();
    const socket = await join(t, url, { auth: { token: token({ sub: 'reader' }) } });
    const logs = [];
    for (const meeting of this.meetings) {
      const { epoch, first_seq, top_seq } = await ask(socket, 'get_history', { meeting_id: meeting, limit: 1 });
      const items = await pagesOf(socket, meeting);
      const log = { meeting, ack: { epoch, first_seq, top_seq }, items };
      this.history.note('log', log);
      logs.push(log);
    }
    socket.disconnect();
    return logs;
  }

  async leave() {
    this.rate = 0;
    for (const member of this.members) member.stop();
    await Promise.all(this.running ?? []);
  }
}
