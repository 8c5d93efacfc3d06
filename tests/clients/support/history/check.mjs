// Judges a history: what many clients sent, were answered and were given, in whatever cluster and under whatever fault.
// It was not there, reads no clock and trusts nobody.
//
//   node check.mjs history.jsonl        prints what is wrong; ends with 0 if nothing is, 1 if something, 2 if unreadable
//
// A history is a list of records, in the order in which they were written down. `client` is the client's name:
//   { op: 'connected', client, to }                       `to`: the instance
//   { op: 'gone', client, reason }
//   { op: 'joining', client, meeting, since }             `since`: `{ epoch, seq }` or nothing
//   { op: 'joined', client, meeting, ack }                the ack of `join_room`, whole
//   { op: 'left', client, meeting }
//   { op: 'live', client, event }                         a logged event with its name: `{ event, meeting_id, seq, … }`
//   { op: 'resync', client, resync }                      the payload
//   { op: 'page', client, meeting, after, ack }           the ack of `get_history` with `after_seq`
//   { op: 'sent', client, meeting, client_id, text }      each try
//   { op: 'acked', client, meeting, client_id, ack }      `{ id, seq, epoch, duplicate }` at least
//   { op: 'refused', client, meeting, client_id, code, isFinal }    `isFinal`: it is not tried again
//   { op: 'told', client, event, payload }                any other event that matters
//   { op: 'final', client }                               it was waited until this client has all there is
//   { op: 'loss', meetings }                              from here on Redis may lose what it had; no list: all meetings
//   { op: 'safe' }                                        what was acked before this must outlive every loss
//   { op: 'log', meeting, ack, items }                    the log at the end; `ack` of `get_history`, `items` of all pages
//
// What is proven, each under the name of its rule:
//   missing    everybody in a meeting has every event from their join on, in pages, acks of joins or live
//   twice      nothing is given twice to an application
//   order      nothing comes behind what follows it
//   reused     a seq has one content within an epoch, whoever saw it
//   content    what is given is what was sent
//   acked      an acked message stands where its ack says
//   lost       an acked message stands in the log at the end, unless Redis lost it
//   acks       all acks of one message say the same, and one at most says that it was new
//   unacked    what was sent was acked, or refused for good
//   recovered  `recovered: true` comes with exactly what was missed, `recovered: false` with the right reason
//   epoch      an epoch changes only if something may have been lost, never back, and everybody is told
//   stray      nothing comes to whom it is not meant
//   log        the log has no holes and nothing twice
//   final      everybody came to the end

import { readFileSync } from 'node:fs';
import { pathToFileURL } from 'node:url';

/** Most events of a recovery. */
const RESUME_MAX = 300;
/** So many faults are told; one mistake makes many. */
const TOLD_MAX = 60;
/** What nobody has given reason for. Other events that were told are for tests to look at. */
const UNWANTED = new Set(['room_left', 'chat_error', 'auth_expired', 'join refused']);

/** `{ faults: [{ rule, text }], counts }`. */
export function check(records) {
  const judge = new Judge();
  for (const record of records) judge.take(record);
  return judge.verdict();
}

/** The same for the text of a file. Throws if a line is not a record. */
export function checkText(text) {
  const lines = text.split('\n').filter((line) => line.trim() !== '');
  return check(
    lines.map((line, n) => {
      try {
        return JSON.parse(line);
      } catch (error) {
        throw new Error(`line ${n + 1}: ${error.message}`, { cause: error });
      }
    }),
  );
}

/** What an event is, without its epoch: a log that outlived a change of epoch may show it under the new one. */
function canonical(value) {
  if (Array.isArray(value)) return `[${value.map(canonical).join()}]`;
  if (value === null || typeof value !== 'object') return JSON.stringify(value);
  const members = Object.keys(value).sort();
  return `{${members.map((key) => `${JSON.stringify(key)}:${canonical(value[key])}`).join()}}`;
}

const contentOf = ({ epoch, ...event }) => canonical(event);

class Judge {
  faults = [];
  left = 0;
  counts = {
    connects: 0,
    sent: 0,
    retried: 0,
    acked: 0,
    refused: 0,
    duplicates: 0,
    delivered: 0,
    resumed: 0,
    notResumed: { epoch: 0, window: 0, too_many: 0 },
    paged: 0,
    resyncs: 0,
    epochs: 0,
  };
  clients = new Map();
  meetings = new Map();
  /** By sender, meeting and client_id. */
  messages = new Map();
  isAllLossy = false;

  fault(rule, text) {
    if (this.faults.length < TOLD_MAX) this.faults.push({ rule, text });
    else this.left++;
  }

  client(name) {
    if (!this.clients.has(name)) this.clients.set(name, new Follower(name, this));
    return this.clients.get(name);
  }

  meeting(name) {
    // epochs: each with what is known of its seqs, in the order in which they were first seen.
    if (!this.meetings.has(name)) this.meetings.set(name, { epochs: new Map(), isLossy: false, log: undefined });
    return this.meetings.get(name);
  }

  take(record) {
    const { op, client } = record;
    switch (op) {
      case 'loss':
        if (!record.meetings) this.isAllLossy = true;
        for (const meeting of record.meetings ?? []) this.meeting(meeting).isLossy = true;
        return undefined;
      case 'safe':
        for (const message of this.messages.values()) if (message.acks.length > 0) message.isSafe = true;
        return undefined;
      case 'log':
        return this.log(record);
      case 'sent':
        return this.sent(record);
      case 'acked':
        return this.acked(record);
      case 'refused':
        return this.refused(record);
      default:
        if (client === undefined || !Follower.OPS.has(op)) throw new Error(`not a record: ${JSON.stringify(record)}`);
        return this.client(client)[op](record);
    }
  }

  message(client, meeting, client_id) {
    const key = `${client} ${meeting} ${client_id}`;
    if (!this.messages.has(key)) this.messages.set(key, { key, client, meeting, client_id, tries: 0, acks: [] });
    return this.messages.get(key);
  }

  sent({ client, meeting, client_id, text }) {
    const message = this.message(client, meeting, client_id);
    message.text = text;
    this.counts.sent++;
    if (message.tries++ > 0) this.counts.retried++;
  }

  acked({ client, meeting, client_id, ack }) {
    const message = this.message(client, meeting, client_id);
    if (message.tries === 0) this.fault('acks', `${message.key}: acked, but never sent`);
    message.acks.push(ack);
    if (message.acks.length === 1) this.counts.acked++;
    if (ack.duplicate) this.counts.duplicates++;
    this.known(meeting, ack.epoch, `the ack of ${message.key}`);
  }

  refused({ client, meeting, client_id, code, isFinal }) {
    const message = this.message(client, meeting, client_id);
    this.counts.refused++;
    if (!isFinal) return;
    message.isRefused = true;
    this.fault('unacked', `${message.key}: was refused: ${code}`);
  }

  /** What is known of one epoch of a meeting: what stands at its seqs, and who said so. */
  known(meeting, epoch, by) {
    const { epochs, isLossy } = this.meeting(meeting);
    if (!epochs.has(epoch)) {
      if (epochs.size > 0) {
        this.counts.epochs++;
        if (!isLossy && !this.isAllLossy) {
          this.fault(
            'epoch',
            `${meeting}: ${epoch} follows ${[...epochs.keys()].at(-1)} with ${by}, but nothing was lost`,
          );
        }
      }
      epochs.set(epoch, new Map());
    }
    return epochs.get(epoch);
  }

  /** Notes what somebody was shown, and compares it with what others were shown at the same place. */
  see(event, { meeting, epoch, by }) {
    if (event.meeting_id !== meeting) this.fault('stray', `${by}: an event of ${event.meeting_id} in ${meeting}`);
    const places = this.known(meeting, epoch, by);
    const content = contentOf(event);
    const place = places.get(event.seq);
    if (place === undefined) places.set(event.seq, { content, event, by });
    else if (place.content !== content) {
      this.fault('reused', `${meeting} ${epoch} ${event.seq}: ${by} has ${content}, ${place.by} has ${place.content}`);
    }
  }

  /** Whether `to` may follow `from`: never an epoch that was there before it. */
  isLater(meeting, from, to) {
    const order = [...this.meeting(meeting).epochs.keys()];
    return order.indexOf(to) >= order.indexOf(from);
  }

  log({ meeting, ack, items }) {
    const { epoch, first_seq, top_seq } = ack;
    const by = `the log of ${meeting}`;
    this.known(meeting, epoch, by);
    for (const item of items) this.see(item, { meeting, epoch, by });
    checkRun(items, first_seq, top_seq, (text) => this.fault('log', `${by}: ${text}`));
    const seen = new Map();
    for (const { seq, ...item } of items) {
      for (const key of keysOf(item)) {
        if (seen.has(key)) this.fault('log', `${by}: ${key} at ${seen.get(key)} and at ${seq}`);
        seen.set(key, seq);
      }
    }
    this.meeting(meeting).log = { epoch, first_seq, top_seq, items, keys: seen };
  }

  verdict() {
    for (const client of this.clients.values()) client.end();
    for (const [name, { log }] of this.meetings) if (!log) this.fault('log', `${name}: nobody looked at its log`);
    for (const message of this.messages.values()) this.judgeMessage(message);
    this.judgeContents();
    if (this.left > 0) this.faults.push({ rule: 'more', text: `and ${this.left} more` });
    return { faults: this.faults, counts: this.counts };
  }

  judgeMessage({ key, client, meeting, client_id, acks, isSafe, isRefused }) {
    const { epochs, log } = this.meeting(meeting);
    if (acks.length === 0) {
      if (!isRefused) this.fault('unacked', `${key}: was never acked`);
      return;
    }
    const byEpoch = groupBy(acks, ({ epoch }) => epoch);
    for (const [epoch, same] of byEpoch) {
      const [{ id, seq }] = same;
      if (same.some((ack) => ack.id !== id || ack.seq !== seq)) {
        this.fault('acks', `${key}: acked as ${JSON.stringify(same)}`);
      }
      if (same.filter(({ duplicate }) => duplicate === false).length > 1) {
        this.fault('acks', `${key}: acked twice as new in ${epoch}`);
      }
      const place = epochs.get(epoch)?.get(seq);
      if (place && (place.event.id !== id || place.event.client_id !== client_id)) {
        this.fault('acked', `${key}: acked at ${epoch} ${seq}, where ${place.content} stands`);
      }
      // Out of the window it may have been seen by nobody.
      if (!place && log && epoch === log.epoch && seq >= log.first_seq) {
        this.fault('acked', `${key}: acked at ${epoch} ${seq}, where nobody saw anything`);
      }
    }
    if (!log) return;
    const isLossy = this.isAllLossy || this.meeting(meeting).isLossy;
    const mustBe = isSafe || !isLossy || byEpoch.has(log.epoch);
    const isThere = log.keys.has(`message ${client} ${client_id}`);
    // What has left the window was there.
    const isTrimmed = acks.some(({ epoch, seq }) => epoch === log.epoch && seq < log.first_seq);
    if (mustBe && !isThere && !isTrimmed) {
      this.fault('lost', `${key}: acked at ${acks[0].epoch} ${acks[0].seq}, and not in the log at the end`);
    }
  }

  /** Whatever was given to anybody as a message of a known sender is what that sender sent. */
  judgeContents() {
    for (const [meeting, { epochs }] of this.meetings) {
      for (const [epoch, places] of epochs) {
        for (const [seq, { event }] of places) {
          if (event.event !== 'chat_message' || !this.clients.has(event.sender)) continue;
          const message = this.messages.get(`${event.sender} ${meeting} ${event.client_id}`);
          if (message?.text !== event.text) {
            this.fault('content', `${meeting} ${epoch} ${seq}: ${JSON.stringify(event)} was never sent`);
          }
        }
      }
    }
  }
}

function groupBy(items, keyOf) {
  const groups = new Map();
  for (const item of items) groups.set(keyOf(item), [...(groups.get(keyOf(item)) ?? []), item]);
  return groups;
}

/** By what one thing is known that must not be there twice. */
function keysOf({ event, id, sender, client_id, event_id }) {
  if (event === 'chat_message') {
    return [`id ${id}`, ...(client_id === undefined ? [] : [`message ${sender} ${client_id}`])];
  }
  return event === 'meeting_update' ? [`update ${event_id}`] : [];
}

function checkRun(items, from, to, fault) {
  const seqs = items.map(({ seq }) => seq);
  const broken = seqs.findIndex((seq, n) => seq !== from + n);
  if (broken >= 0) fault(`${seqs[broken]} stands where ${from + broken} should`);
  else if (seqs.length !== to - from + 1) fault(`${seqs.length} events instead of ${from} to ${to}`);
}

/** One client's application, lived again by its records. */
class Follower {
  static OPS = new Set(['connected', 'gone', 'joining', 'joined', 'left', 'live', 'resync', 'page', 'told', 'final']);
  isConnected = false;
  isFinal = false;
  rooms = new Map();

  constructor(name, judge) {
    Object.assign(this, { name, judge });
  }

  fault(rule, text) {
    this.judge.fault(rule, `${this.name}: ${text}`);
  }

  room(meeting) {
    // epoch, next: the live event that must come next. fill: what is still to be read by pages, `{ next, upto }`.
    // seqs, keys: what the application has of this epoch. A change of epoch makes it throw away both.
    if (!this.rooms.has(meeting)) {
      this.rooms.set(meeting, { isMember: false, epoch: undefined, next: undefined, fill: undefined, ...nothing() });
    }
    return this.rooms.get(meeting);
  }

  connected() {
    this.isConnected = true;
    this.judge.counts.connects++;
  }

  gone() {
    this.isConnected = false;
    for (const room of this.rooms.values()) this.out(room);
  }

  left({ meeting }) {
    this.out(this.room(meeting));
  }

  /** Out of the meeting. What waited behind a hole that was not filled is thrown away and will be asked for again. */
  out(room) {
    if (room.isMember && room.fill) {
      for (const seq of [...room.seqs]) if (seq >= room.fill.next) room.seqs.delete(seq);
      room.next = room.fill.next;
      room.keys = new Map([...room.keys].filter(([, seq]) => seq < room.next));
    }
    Object.assign(room, { isMember: false, fill: undefined, asked: undefined });
  }

  joining({ meeting, since }) {
    const room = this.room(meeting);
    room.asked = { since };
    const known = room.epoch && { epoch: room.epoch, seq: room.next - 1 };
    if (since && (since.epoch !== known?.epoch || since.seq !== known?.seq)) {
      this.fault('recovered', `${meeting}: asks since ${text(since)}, and has ${text(known)}: the history is wrong`);
    }
  }

  joined({ meeting, ack }) {
    const room = this.room(meeting);
    const { since } = room.asked ?? {};
    const where = `join of ${meeting}`;
    const events = ack.events ?? [];
    if (!this.isConnected || !room.asked) this.fault('stray', `${where}: an ack that nobody waits for`);
    this.judge.known(meeting, ack.epoch, `${this.name}, ${where}`);
    if (since) this.resumed(room, since, ack, events, where);
    else {
      if (ack.recovered !== undefined) this.fault('recovered', `${where}: recovered without since`);
      Object.assign(room, { epoch: ack.epoch, next: ack.seq - events.length + 1, ...nothing() });
    }
    for (const event of events) this.give(room, event, { meeting, epoch: ack.epoch, where });
    Object.assign(room, { isMember: true, asked: undefined, epoch: ack.epoch, next: ack.seq + 1 });
  }

  resumed(room, since, ack, events, where) {
    const { seq, first_seq, recovered, reason } = ack;
    const isSame = since.epoch === ack.epoch;
    if (!isSame && !this.judge.isLater(ack.meeting_id, since.epoch, ack.epoch)) {
      this.fault('epoch', `${where}: back from ${since.epoch} to ${ack.epoch}`);
    }
    const reasons = [];
    if (!isSame || since.seq > seq) reasons.push('epoch');
    else {
      if (since.seq + 1 < first_seq) reasons.push('window');
      if (seq - since.seq > RESUME_MAX) reasons.push('too_many');
    }
    const said = text({ recovered, reason, since, epoch: ack.epoch, seq, first_seq });
    if (recovered === true) {
      if (reasons.length > 0) this.fault('recovered', `${where}: true instead of ${reasons.join(' or ')}: ${said}`);
      checkRun(events, since.seq + 1, seq, (what) => this.fault('recovered', `${where}: ${what}: ${said}`));
      this.judge.counts.resumed++;
      room.next = since.seq + 1;
      return;
    }
    if (recovered !== false) this.fault('recovered', `${where}: says nothing of it: ${said}`);
    // An answer may be cut for its bytes too, so `too_many` needs no 300 events.
    else if (!reasons.includes(reason) && !(reason === 'too_many' && reasons.length === 0 && seq > since.seq)) {
      this.fault('recovered', `${where}: ${reasons.join(' or ') || 'no reason'} expected: ${said}`);
    }
    if (events.length > 0) this.fault('recovered', `${where}: events though not recovered: ${said}`);
    if (reason in this.judge.counts.notResumed) this.judge.counts.notResumed[reason]++;
    if (reason === 'epoch') this.anew(room, ack.epoch, first_seq, seq);
    else room.fill = { next: Math.max(since.seq + 1, first_seq), upto: seq };
  }

  /** The application throws away what it has, and is to read `first` to `top` by pages. */
  anew(room, epoch, first, top) {
    Object.assign(room, { epoch, next: top + 1, ...nothing() });
    room.fill = first <= top ? { next: first, upto: top } : undefined;
  }

  resync({ resync }) {
    const { meeting_id: meeting, reason, epoch, top_seq, first_seq } = resync;
    const room = this.room(meeting);
    this.judge.counts.resyncs++;
    this.judge.known(meeting, epoch, `${this.name}, resync`);
    // Whoever joins in that moment gets it too; the ack will say the same.
    if (!room.isMember && room.asked) return;
    if (!this.isConnected || !room.isMember) {
      this.fault('stray', `${meeting}: resync without being in it`);
      return;
    }
    if (reason === 'epoch_changed') {
      if (epoch === room.epoch) this.fault('epoch', `${meeting}: resync to ${epoch}, which it was already`);
      if (!this.judge.isLater(meeting, room.epoch, epoch)) {
        this.fault('epoch', `${meeting}: back from ${room.epoch} to ${epoch}`);
      }
      this.anew(room, epoch, first_seq, top_seq);
      return;
    }
    if (reason !== 'window_exceeded' || epoch !== room.epoch) {
      this.fault('epoch', `${meeting}: ${text(resync)} in ${room.epoch}`);
    }
    const from = room.fill?.next ?? room.next;
    if (first_seq <= from)
      this.fault('missing', `${meeting}: resync from ${from}, though the log has it: ${text(resync)}`);
    const next = Math.max(first_seq, from);
    room.fill = next <= top_seq ? { next, upto: top_seq } : undefined;
    room.next = top_seq + 1;
  }

  page({ meeting, after, ack }) {
    const room = this.room(meeting);
    const { epoch, items, first_seq, top_seq } = ack;
    const where = `page of ${meeting} after ${after}`;
    const from = Math.max(after + 1, first_seq);
    checkRun(items, from, Math.min(top_seq, from + items.length - 1), (what) =>
      this.fault('missing', `${where}: ${what}`),
    );
    if (items.length === 0 && from <= top_seq)
      this.fault('missing', `${where}: empty, with ${first_seq} to ${top_seq}`);
    const { fill } = room;
    if (!fill || epoch !== room.epoch || after !== fill.next - 1) {
      for (const item of items) this.judge.see(item, { meeting, epoch, by: `${this.name}, ${where}` });
      return;
    }
    for (const item of items) {
      // What is above was given live, or will be.
      if (item.seq > fill.upto) this.judge.see(item, { meeting, epoch, by: `${this.name}, ${where}` });
      else this.give(room, item, { meeting, epoch, where });
    }
    this.judge.counts.paged += items.length;
    // Pages begin later than asked if the log does: then what is missing cannot be had, and the client knows.
    fill.next = Math.max(fill.next, first_seq, (items.at(-1)?.seq ?? 0) + 1);
    if (fill.next > fill.upto) room.fill = undefined;
  }

  live({ event }) {
    const { meeting_id: meeting, seq, epoch } = event;
    const room = this.room(meeting);
    if (!this.isConnected || !room.isMember) {
      this.fault('stray', `${meeting} ${epoch} ${seq} came live without being in it`);
      return;
    }
    if (epoch !== room.epoch) {
      this.judge.known(meeting, epoch, `${this.name}, live`);
      this.fault('epoch', `${meeting}: ${epoch} ${seq} came live in ${room.epoch}, and nobody told`);
      this.anew(room, epoch, seq, seq - 1);
    } else if (seq > room.next) {
      this.fault('missing', `${meeting}: ${seq} came live, ${room.next} was next`);
    } else if (seq < room.next && !room.seqs.has(seq)) {
      this.fault('order', `${meeting}: ${seq} came live behind ${room.next - 1}`);
    }
    this.give(room, event, { meeting, epoch, where: 'live' });
    room.next = Math.max(room.next, seq + 1);
  }

  /** An event gets to the application. */
  give(room, event, { meeting, epoch, where }) {
    const { seq } = event;
    this.judge.counts.delivered++;
    this.judge.see(event, { meeting, epoch, by: `${this.name}, ${where}` });
    if (room.seqs.has(seq)) this.fault('twice', `${meeting} ${epoch} ${seq} came twice, now by ${where}`);
    for (const key of keysOf(event)) {
      if (room.keys.has(key) && room.keys.get(key) !== seq) {
        this.fault('twice', `${meeting}: ${key} came as ${room.keys.get(key)} and as ${seq}`);
      }
      room.keys.set(key, seq);
    }
    room.seqs.add(seq);
  }

  told({ event, payload }) {
    if (UNWANTED.has(event)) this.fault('stray', `${event} ${text(payload)}`);
  }

  final() {
    this.isFinal = true;
    if (!this.isConnected) this.fault('final', 'is not connected at the end');
    // The logs come behind: where everybody stands is looked at then.
    this.ends = [...this.rooms].map(([meeting, room]) => ({ meeting, ...room }));
  }

  end() {
    if (!this.isFinal) this.fault('final', 'never came to the end');
    for (const { meeting, isMember, epoch, next, fill } of this.ends ?? []) {
      const { log } = this.judge.meeting(meeting);
      if (!isMember) this.fault('final', `${meeting}: is not in it at the end`);
      else if (!log) continue;
      else if (epoch !== log.epoch) this.fault('epoch', `${meeting}: still in ${epoch} at the end of ${log.epoch}`);
      else if (next !== log.top_seq + 1) {
        this.fault('missing', `${meeting}: has ${epoch} up to ${next - 1} of ${log.top_seq} at the end`);
      }
      if (fill) this.fault('missing', `${meeting}: ${fill.next} to ${fill.upto} were not read at the end`);
    }
  }
}

const nothing = () => ({ seqs: new Set(), keys: new Map() });
const text = (value) => JSON.stringify(value);

if (process.argv[1] && import.meta.url === pathToFileURL(process.argv[1]).href) {
  const [path] = process.argv.slice(2);
  if (!path) {
    console.error('usage: node check.mjs history.jsonl');
    process.exit(2);
  }
  try {
    const { faults, counts } = checkText(readFileSync(path, 'utf8'));
    for (const { rule, text: what } of faults) console.log(`${rule}: ${what}`);
    console.log(JSON.stringify({ faults: faults.length, ...counts }));
    process.exitCode = faults.length > 0 ? 1 : 0;
  } catch (error) {
    console.error(error.message);
    process.exitCode = 2;
  }
}
