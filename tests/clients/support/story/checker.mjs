// Judges a story of many clients by what each of them wrote down, without having been there. No clock, no network.
//
// A story is `{ historySize, clients, logs, marks, unread, inboxes }`:
//   clients   [{ name, user, records }]; a record is one of
//             { connected: sid }, { gone: reason }, { cut: how }, { refused: error },
//             { ask: event, n, payload }, { ack: n, answer }, { event, payload }, { final: true }
//             in the order in which the application saw them. `final`: all that was ever said must be here by now.
//   logs      { meeting_id: { epoch, first_seq, top_seq, items } } at the end, by get_history
//   marks     { user: { meeting_id: seq } }, the read marks at the end
//   unread    { user: { notifications, meetings } } of a `ready` after the end
//   inboxes   { user: { items, unread } } at the end

const LOGGED = new Set(['chat_message', 'message_edited', 'message_deleted', 'message_reaction', 'meeting_update']);
/** Events of a meeting that are not logged: only who is in it may get them. */
const VOLATILE = new Set(['typing', 'presence_update', 'read_receipt']);
/** Refusals that are part of the story. Every other one is a fault. */
const REFUSALS = {
  edit_message: ['forbidden', 'conflict', 'not_found'],
  delete_message: ['forbidden', 'not_found'],
  react: ['conflict', 'not_found'],
  // What is answered may have left the window of the log, or be deleted.
  chat_message: ['not_found'],
};
/** Most events of a recovery. */
const RESUME_MAX = 300;
const UNREAD_MAX = 999;
const INBOX_MAX = 200;
/** So many faults are told; one mistake makes many. */
const TOLD_MAX = 60;

/** `{ faults, counts }`: what went wrong, in words, and how much went on. */
export function check(story) {
  const faults = [];
  let left = 0;
  const fault = (text) => (faults.length < TOLD_MAX ? faults.push(text) : left++);
  const contents = new Contents(fault);
  for (const [meeting, log] of Object.entries(story.logs)) {
    contents.see(log.items, { meeting, epoch: log.epoch, top: log.top_seq, by: 'the log' });
    checkRun(log.items, log.first_seq, log.top_seq, `the log of ${meeting}`, fault);
  }
  const counts = {
    sent: 0,
    acked: 0,
    cuts: 0,
    connects: 0,
    delivered: 0,
    resumed: 0,
    paged: 0,
    duplicates: 0,
    lostAcks: 0,
    left: 0,
  };
  const followers = story.clients.map((client) => new Follower(client, story, contents, counts, fault));
  for (const follower of followers) follower.replay();
  contents.settle();
  checkMessages(followers, story, contents, counts, fault);
  for (const log of Object.entries(story.logs)) checkHistory(log, contents, fault);
  checkUnread(followers, story, contents, fault);
  if (left > 0) faults.push(`and ${left} more`);
  return { faults, counts };
}

/** Objects with the same members have the same text, whatever their order. */
function canonical(value) {
  if (Array.isArray(value)) return `[${value.map(canonical).join()}]`;
  if (value === null || typeof value !== 'object') return JSON.stringify(value);
  const members = Object.keys(value).sort();
  return `{${members.map((key) => `${JSON.stringify(key)}:${canonical(value[key])}`).join()}}`;
}

function checkRun(items, from, to, where, fault) {
  const seqs = items.map(({ seq }) => seq);
  const expected = to - from + 1;
  const broken = seqs.findIndex((seq, n) => seq !== from + n);
  if (broken >= 0) fault(`${where}: event ${seqs[broken]} stands where ${from + broken} should`);
  else if (seqs.length !== expected) fault(`${where}: ${seqs.length} events instead of ${from} to ${to}`);
}

/** What stood at each place of each log, whoever saw it. A deletion erases a text: both forms are known. */
class Contents {
  meetings = new Map();

  constructor(fault) {
    this.fault = fault;
  }

  places(meeting) {
    if (!this.meetings.has(meeting)) this.meetings.set(meeting, new Map());
    return this.meetings.get(meeting);
  }

  /** `top`: how far the log was when it showed these; `undefined` for live events. */
  see(events, { meeting, epoch, top, by }) {
    const places = this.places(meeting);
    for (const event of events) {
      if (event.epoch !== epoch) this.fault(`${by}: epoch ${event.epoch} in ${meeting} of ${epoch}`);
      if (event.meeting_id !== meeting) this.fault(`${by}: an event of ${event.meeting_id} in ${meeting}`);
      const place = places.get(event.seq) ?? { event, wholeTop: -1 };
      places.set(event.seq, place);
      const form = event.deleted === true ? 'erased' : 'whole';
      const text = canonical(event);
      const known = place[form];
      if (known === undefined) {
        place[form] = text;
        place[`${form}By`] = by;
        if (form === 'whole') place.event = event;
      } else if (known !== text) {
        this.fault(`${meeting} ${event.seq}: ${by} has ${text}, ${place[`${form}By`]} has ${known}`);
      }
      if (form === 'whole' && top > place.wholeTop) {
        place.wholeTop = top;
        place.wholeTopBy = by;
      }
    }
  }

  /** When all was seen: what is erased must be the rest of what was there, and be erased wherever it had to be. */
  settle() {
    for (const [meeting, places] of this.meetings) {
      const deletions = new Map();
      for (const [seq, { event }] of places) if (event.event === 'message_deleted') deletions.set(event.id, seq);
      for (const [seq, place] of places) {
        const { event, whole, erased, wholeTop } = place;
        const deletion = deletions.get(event.id);
        if (erased !== undefined && deletion === undefined) {
          this.fault(`${meeting} ${seq}: erased for ${place.erasedBy}, though nobody deleted it`);
        }
        if (whole !== undefined && erased !== undefined) {
          const { meta, ...rest } = event;
          const expected = canonical({ ...rest, text: '', deleted: true });
          if (erased !== expected) this.fault(`${meeting} ${seq}: erased it is ${erased} instead of ${expected}`);
        }
        const hasText = event.event === 'chat_message' || event.event === 'message_edited';
        if (hasText && whole !== undefined && deletion <= wholeTop) {
          this.fault(`${meeting} ${seq}: ${place.wholeTopBy} was shown a text that ${deletion} had deleted`);
        }
      }
    }
  }
}

/** One client's application, lived again by its records. */
class Follower {
  isConnected = false;
  rooms = new Map();
  pending = new Map();
  /** Acked or not: `{ meeting, client_id, text, payload, answer }`. */
  sends = [];
  /** Acks of edits, deletions and reactions: `{ op, payload, answer }`. */
  changes = [];
  /** Lowest seq of a join, by meeting; all read marks that were told, and all that were asked for. */
  joinedAt = new Map();
  marks = [];
  wishes = [];
  isFinal = false;
  notified = { nseq: 0 };

  constructor(client, story, contents, counts, fault) {
    Object.assign(this, { client, story, contents, counts });
    this.fault = (text) => fault(`${client.name}: ${text}`);
  }

  room(meeting) {
    // seen: the last event the application has, without a hole. next: the live event that must come next.
    // fill: what of the time before the join is still to be read by pages.
    if (!this.rooms.has(meeting))
      this.rooms.set(meeting, { isMember: false, seen: undefined, next: 0, fill: undefined });
    return this.rooms.get(meeting);
  }

  replay() {
    for (const record of this.client.records) {
      if ('event' in record) this.heard(record);
      else if ('ask' in record) this.asked(record);
      else if ('ack' in record) this.answered(record);
      else if ('connected' in record) {
        this.isConnected = true;
        this.notified.nseq = 0;
        this.counts.connects++;
      } else if ('gone' in record) this.gone();
      else if ('cut' in record) this.counts.cuts++;
      else if ('final' in record) this.final();
      else this.fault(`met ${JSON.stringify(record)}`);
    }
    this.gone();
    if (!this.isFinal) this.fault('never came to the end of its story');
  }

  gone() {
    this.isConnected = false;
    for (const room of this.rooms.values()) this.out(room);
    for (const { event } of this.pending.values()) if (event === 'chat_message') this.counts.lostAcks++;
    this.pending.clear();
  }

  /** Out of the meeting. What waited behind a hole that was not filled is thrown away and will be asked for again. */
  out(room) {
    if (room.isMember) room.seen = (room.fill?.next ?? room.next) - 1;
    Object.assign(room, { isMember: false, fill: undefined });
  }

  asked({ ask: event, n, payload }) {
    this.pending.set(n, { event, payload });
    const meeting = payload?.meeting_id;
    if (event === 'join_room') {
      const room = this.room(meeting);
      const position = room.isMember ? room.next - 1 : room.seen;
      if (payload.since && payload.since.seq !== position) {
        this.fault(`asked for ${meeting} since ${payload.since.seq}, but had seen ${position}: the story is wrong`);
      }
    } else if (event === 'chat_message') {
      const send = { meeting, client_id: payload.client_id, text: payload.text, payload };
      this.sends.push(send);
      this.pending.get(n).send = send;
      this.counts.sent++;
    } else if (event === 'mark_read') {
      // Moved or not: without an answer nobody knows.
      this.wishes.push({ meeting, seq: payload.seq });
    }
  }

  answered({ ack: n, answer }) {
    const asked = this.pending.get(n);
    if (!asked) return this.fault(`got an ack nobody waits for: ${JSON.stringify(answer)}`);
    this.pending.delete(n);
    const { event, payload, send } = asked;
    if (answer?.ok !== true) {
      if (!REFUSALS[event]?.includes(answer?.error?.code)) {
        this.fault(`${event} ${JSON.stringify(payload)} was refused: ${JSON.stringify(answer)}`);
      }
      if (send) send.refused = answer;
      return undefined;
    }
    const room = payload?.meeting_id === undefined ? undefined : this.room(payload.meeting_id);
    switch (event) {
      case 'join_room':
        return this.joined(room, payload, answer);
      case 'leave_room':
        this.counts.left++;
        return this.out(room);
      case 'chat_message':
        send.answer = answer;
        return undefined;
      case 'edit_message':
      case 'delete_message':
      case 'react':
        this.changes.push({ op: event, payload, answer });
        return undefined;
      case 'mark_read':
        return this.marked(payload, answer);
      case 'get_history':
        return this.page(room, payload, answer);
      default:
        return undefined;
    }
  }

  joined(room, { meeting_id: meeting, since, limit }, ack) {
    const where = `join of ${meeting}`;
    const { epoch } = this.story.logs[meeting];
    const events = ack.events ?? [];
    this.contents.see(events, { meeting, epoch, top: ack.seq, by: `${this.client.name} (join)` });
    if (ack.epoch !== epoch) this.fault(`${where}: epoch ${ack.epoch} instead of ${epoch}`);
    // The log may be ahead of the room, by events that come live.
    if (
      ack.first_seq < Math.max(1, ack.seq - this.story.historySize + 1) ||
      ack.first_seq > this.story.logs[meeting].first_seq
    ) {
      this.fault(`${where}: at ${ack.seq} the log begins with ${ack.first_seq}`);
    }
    this.joinedAt.set(meeting, Math.min(this.joinedAt.get(meeting) ?? Infinity, ack.seq));
    if (since) {
      const missed = ack.seq - since.seq;
      const reasons = [];
      if (since.seq + 1 < ack.first_seq) reasons.push('window');
      if (missed > (limit ?? RESUME_MAX)) reasons.push('too_many');
      if (missed < 0) this.fault(`${where}: stands at ${ack.seq}, though ${since.seq} was seen`);
      else if (ack.recovered !== (reasons.length === 0) || (!ack.recovered && !reasons.includes(ack.reason))) {
        const { recovered, reason, seq, first_seq } = ack;
        this.fault(`${where}: ${JSON.stringify({ recovered, reason, since: since.seq, seq, first_seq, limit })}`);
      }
      checkRun(events, ack.recovered ? since.seq + 1 : ack.seq + 1, ack.seq, where, this.fault);
    } else {
      if ('recovered' in ack) this.fault(`${where}: recovered without since`);
      const first = Math.max(ack.first_seq, ack.seq - (limit ?? 0) + 1);
      checkRun(events, first, ack.seq, where, this.fault);
    }
    if (room.isMember) {
      if (room.next !== ack.seq + 1) this.fault(`${where} again: at ${ack.seq}, but ${room.next} comes next live`);
      return;
    }
    room.isMember = true;
    room.next = ack.seq + 1;
    if (since && !ack.recovered) room.fill = { next: since.seq + 1, upto: ack.seq };
    if (ack.recovered) this.counts.resumed++;
    this.counts.delivered += events.length;
  }

  page(room, { meeting_id: meeting, after_seq, before_seq, limit = 50 }, ack) {
    const where = `page of ${meeting}`;
    const { items, top_seq, first_seq, has_more } = ack;
    const { epoch } = this.story.logs[meeting];
    if (ack.epoch !== epoch) this.fault(`${where}: epoch ${ack.epoch} instead of ${epoch}`);
    this.contents.see(items, { meeting, epoch, top: top_seq, by: `${this.client.name} (page)` });
    let [from, to] = [Math.max(first_seq, top_seq - limit + 1), top_seq];
    if (after_seq !== undefined) {
      from = Math.max(after_seq + 1, first_seq);
      to = Math.min(from + limit - 1, top_seq);
    } else if (before_seq !== undefined) {
      to = Math.min(before_seq - 1, top_seq);
      from = Math.max(first_seq, to - limit + 1);
    }
    checkRun(items, from, Math.max(to, from - 1), where, this.fault);
    const more = after_seq === undefined ? from > first_seq && to >= from : to < top_seq;
    if (to >= from && has_more !== more)
      this.fault(`${where}: has_more ${has_more} with ${from} to ${to} of ${first_seq} to ${top_seq}`);
    const { fill } = room;
    if (!fill || after_seq !== fill.next - 1) return;
    // Pages begin later than asked if the log does: then what is missing cannot be had, and the client knows.
    for (const { seq } of items) if (seq <= fill.upto) fill.next = Math.max(fill.next, seq + 1);
    if (first_seq > fill.upto) fill.next = fill.upto + 1;
    this.counts.paged += items.length;
    if (fill.next > fill.upto) room.fill = undefined;
  }

  heard({ event, payload }) {
    if (!this.isConnected) this.fault(`got ${event} while it was not connected`);
    const meeting = payload?.meeting_id;
    if (LOGGED.has(event)) return this.live(meeting, { event, ...payload });
    if (VOLATILE.has(event)) {
      if (!this.room(meeting).isMember) this.fault(`got ${event} of ${meeting} without being in it`);
      if (event === 'typing' && payload.user_id === this.client.user) this.fault(`was told of its own typing`);
    } else if (event === 'notification') {
      if (payload.nseq <= this.notified.nseq)
        this.fault(`got notification ${payload.nseq} after ${this.notified.nseq}`);
      this.notified.nseq = payload.nseq;
      const kept = this.story.inboxes[this.client.user]?.items.find(({ id }) => id === payload.id);
      const oldest = this.story.inboxes[this.client.user]?.items[0]?.nseq ?? Infinity;
      if (!kept && payload.nseq >= oldest)
        this.fault(`got a notification that is not in its inbox: ${JSON.stringify(payload)}`);
      if (kept && canonical({ ...kept, read: false }) !== canonical(payload)) {
        this.fault(`got ${JSON.stringify(payload)}, and has ${JSON.stringify(kept)} in its inbox`);
      }
    } else if (['chat_error', 'resync', 'room_left', 'auth_expired', 'server_draining'].includes(event)) {
      this.fault(`got ${event} ${JSON.stringify(payload)}`);
    }
    return undefined;
  }

  live(meeting, event) {
    const room = this.room(meeting);
    this.counts.delivered++;
    if (!room.isMember) return this.fault(`got ${meeting} ${event.seq} live without being in it`);
    const { epoch } = this.story.logs[meeting];
    this.contents.see([event], { meeting, epoch, by: `${this.client.name} (live)` });
    if (event.seq > room.next) this.fault(`${meeting}: ${room.next} is missing, ${event.seq} came`);
    if (event.seq < room.next) this.fault(`${meeting}: ${event.seq} came again or too late, ${room.next} is next`);
    room.next = Math.max(room.next, event.seq + 1);
    return undefined;
  }

  marked({ meeting_id: meeting, seq: asked }, { seq }) {
    const { user } = this.client;
    this.marks.push({ user, meeting, asked, seq });
  }

  /** All has been said: whoever is in a meeting has it up to its top. */
  final() {
    this.isFinal = true;
    if (!this.isConnected) this.fault('was not connected at the end');
    for (const [meeting, room] of this.rooms) {
      if (!room.isMember) continue;
      const { top_seq } = this.story.logs[meeting];
      if (room.fill) this.fault(`${meeting}: ${room.fill.next} to ${room.fill.upto} are missing at the end`);
      if (room.next !== top_seq + 1)
        this.fault(`${meeting}: has events up to ${room.next - 1} of ${top_seq} at the end`);
    }
  }
}

/** Every message that was acked stands in the log, once, as it was sent; every repeat was told the same. */
function checkMessages(followers, story, contents, counts, fault) {
  const at = (meeting, seq) => contents.places(meeting).get(seq);
  const byClientId = new Map();
  for (const [meeting, places] of contents.meetings) {
    for (const { event } of places.values()) {
      if (event.event !== 'chat_message' || event.client_id === undefined) continue;
      const key = `${event.sender} ${meeting} ${event.client_id}`;
      if (byClientId.has(key)) fault(`${key}: logged twice, ${byClientId.get(key).seq} and ${event.seq}`);
      byClientId.set(key, event);
    }
  }
  for (const { client, sends, changes } of followers) {
    const messages = new Map();
    for (const send of sends) {
      const key = `${client.user} ${send.meeting} ${send.client_id}`;
      if (!messages.has(key)) messages.set(key, []);
      messages.get(key).push(send);
    }
    for (const [key, tries] of messages) {
      const answers = tries.filter(({ answer }) => answer).map(({ answer }) => answer);
      const logged = byClientId.get(key);
      if (answers.length === 0) {
        if (!tries.some(({ refused }) => refused)) fault(`${key}: was never acked`);
        else if (logged && tries.length === 1) fault(`${key}: was refused, and stands in the log`);
        continue;
      }
      counts.acked++;
      counts.duplicates += answers.filter(({ duplicate }) => duplicate).length;
      const [{ id, seq, epoch, ts }] = answers;
      for (const answer of answers) {
        if (answer.id !== id || answer.seq !== seq || answer.epoch !== epoch || answer.ts !== ts) {
          fault(`${key}: acked as ${JSON.stringify(answer)} and as ${JSON.stringify(answers[0])}`);
        }
      }
      const firsts = answers.filter(({ duplicate }) => duplicate === false).length;
      if (firsts > 1) fault(`${key}: ${firsts} acks say that it was new`);
      if (firsts === 0 && answers.length === tries.length) fault(`${key}: no ack says that it was new`);
      const place = at(tries[0].meeting, seq);
      const { event } = place ?? {};
      if (!event || event.event !== 'chat_message' || event.id !== id || event.client_id !== tries[0].client_id) {
        // Out of the window, it may have been seen by nobody.
        if (event || seq >= story.logs[tries[0].meeting].first_seq)
          fault(`${key}: acked at ${seq}, where ${JSON.stringify(event)} stands`);
        continue;
      }
      const { text, mentions, meta, reply_to } = tries[0].payload;
      if (place.whole !== undefined) {
        const sent = canonical({ text, mentions: mentions ?? null, meta: meta ?? null, reply_to: reply_to ?? null });
        const { text: t, mentions: m = null, meta: o = null, reply_to: r = null } = event;
        const got = canonical({ text: t, mentions: m, meta: o, reply_to: r });
        if (sent !== got) fault(`${key}: ${sent} was sent and ${got} was logged`);
      }
      if (event.sender !== client.user) fault(`${key}: is from ${event.sender}`);
    }
    const kinds = { edit_message: 'message_edited', delete_message: 'message_deleted' };
    for (const { op, payload, answer } of changes) {
      const place = at(payload.meeting_id, answer.seq);
      if (!place && answer.seq < story.logs[payload.meeting_id].first_seq) continue;
      const isIt = place?.event.id === payload.id && (op === 'react' || place.event.event === kinds[op]);
      if (!isIt) fault(`${client.name}: ${op} acked at ${answer.seq}, where ${JSON.stringify(place?.event)} stands`);
      else if (op === 'edit_message' && place.whole !== undefined && place.event.text !== payload.text) {
        fault(`${client.name}: edit acked at ${answer.seq} has another text`);
      }
    }
  }
}

/** What a log says must make sense: who changed what, and when. Only for what is known from the first event on. */
function checkHistory([meeting, { top_seq }], contents, fault) {
  const places = contents.places(meeting);
  const messages = new Map();
  for (let seq = 1; seq <= top_seq; seq++) {
    const event = places.get(seq)?.event;
    // Nobody saw it: nothing can be said about what comes behind.
    if (!event) return;
    const where = `${meeting} ${seq}`;
    if (event.event === 'meeting_update') continue;
    if (event.event === 'chat_message') {
      messages.set(event.id, { sender: event.sender, version: 0, reactions: new Map() });
      continue;
    }
    const message = messages.get(event.id);
    if (!message) fault(`${where}: is about a message that is not there`);
    else if (message.isDeleted) fault(`${where}: is about a deleted message`);
    else if (event.event === 'message_edited') {
      if (event.version !== ++message.version)
        fault(`${where}: version ${event.version} instead of ${message.version}`);
      if (event.editor !== message.sender) fault(`${where}: edited by ${event.editor}, who did not write it`);
    } else if (event.event === 'message_deleted') {
      message.isDeleted = true;
      if (event.deleted_by !== message.sender) fault(`${where}: deleted by ${event.deleted_by}, who did not write it`);
    } else if (event.event === 'message_reaction') {
      const { emoji, user_id, removed, count } = event;
      const users = message.reactions.get(emoji) ?? new Set();
      message.reactions.set(emoji, users);
      if (users.has(user_id) !== removed) fault(`${where}: changes nothing`);
      if (removed) users.delete(user_id);
      else users.add(user_id);
      if (users.size !== count) fault(`${where}: ${count} reactions instead of ${users.size}`);
    }
  }
}

/** Marks only go forward; what is unread is what stands above them; inboxes hold what was said to their users. */
function checkUnread(followers, story, contents, fault) {
  for (const [user, marks] of Object.entries(story.marks)) {
    const own = followers.filter(({ client }) => client.user === user);
    const moves = own.flatMap(({ marks: moved }) => moved);
    for (const [meeting, mark] of Object.entries(marks)) {
      const there = moves.filter((move) => move.meeting === meeting);
      const told = Math.max(0, ...there.map(({ seq }) => seq));
      const joins = own.map(({ joinedAt }) => joinedAt.get(meeting) ?? Infinity);
      const first = Math.min(...joins);
      const wishes = own.flatMap(({ wishes: all }) =>
        all.filter((wish) => wish.meeting === meeting).map(({ seq }) => seq),
      );
      // 1 is what it was asked with.
      const possible = Math.max(Number.isFinite(first) ? first : 0, ...wishes, 1);
      const { first_seq, top_seq } = story.logs[meeting];
      if (mark < told) fault(`${user}: the mark in ${meeting} is ${mark}, and was ${told}`);
      if (mark > Math.max(possible, first_seq - 1))
        fault(`${user}: the mark in ${meeting} is ${mark}, nobody set it over ${possible}`);
      const places = contents.places(meeting);
      let expected = 0;
      let isKnown = true;
      for (let seq = mark + 1; seq <= top_seq; seq++) {
        const event = places.get(seq)?.event;
        if (!event) isKnown = false;
        else if (event.event === 'chat_message' && event.sender !== user) expected++;
      }
      const unread = story.unread[user].meetings[meeting];
      if (isKnown && unread !== Math.min(expected, UNREAD_MAX)) {
        fault(`${user}: ${unread} unread in ${meeting} instead of ${expected} above ${mark} of ${top_seq}`);
      }
    }
    for (const meeting of Object.keys(story.unread[user].meetings)) {
      if (!(meeting in marks)) fault(`${user}: has unread messages in ${meeting}, without a mark`);
    }
  }
  for (const { client, marks } of followers) {
    const before = new Map();
    for (const { meeting, asked, seq } of marks) {
      if (seq < (before.get(meeting) ?? 0)) fault(`${client.name}: the mark in ${meeting} went back to ${seq}`);
      // Clients ask for what they have seen, so nothing but an empty log keeps a mark lower.
      if (seq < Math.min(asked, story.logs[meeting].top_seq)) {
        fault(`${client.name}: the mark in ${meeting} is ${seq} though ${asked} was read`);
      }
      before.set(meeting, seq);
    }
  }
  for (const [user, { items, unread }] of Object.entries(story.inboxes)) {
    const notices = expectedNotices(user, story, contents);
    if (notices === undefined) continue;
    const got = items.map(
      ({ kind, meeting_id, actor_id, data }) => `${kind} ${meeting_id} ${data.seq} ${data.message_id} ${actor_id}`,
    );
    const missing = notices.size <= INBOX_MAX ? [...notices].filter((notice) => !got.includes(notice)) : [];
    if (missing.length > 0) fault(`${user}: the inbox lacks ${missing.join('; ')}`);
    const extra = got.filter((notice) => !notices.has(notice));
    if (extra.length > 0) fault(`${user}: the inbox has ${extra.join('; ')}`);
    if (new Set(got).size !== got.length) fault(`${user}: the inbox has something twice`);
    if (items.length > 0) {
      const seqs = items.map(({ nseq }) => ({ seq: nseq }));
      checkRun(seqs, notices.size - items.length + 1, notices.size, `the inbox of ${user}`, fault);
    }
    const kept = items.filter(({ read }) => !read).length;
    if (unread !== kept) fault(`${user}: ${unread} unread notifications, ${kept} in the inbox`);
    if (story.unread[user].notifications !== kept) {
      fault(`${user}: was told of ${story.unread[user].notifications} unread notifications, ${kept} are in the inbox`);
    }
  }
}

/** Mentions of a user and answers to their messages; `undefined` if the log is not known whole. */
function expectedNotices(user, { logs }, contents) {
  const notices = new Set();
  for (const [meeting, places] of contents.meetings) {
    const authors = new Map();
    for (let seq = 1; seq <= logs[meeting].top_seq; seq++) {
      const event = places.get(seq)?.event;
      if (!event) return undefined;
      if (event.event !== 'chat_message') continue;
      authors.set(event.id, event.sender);
      if (event.sender === user) continue;
      const notice = (kind) => notices.add(`${kind} ${meeting} ${seq} ${event.id} ${event.sender}`);
      if (event.mentions?.includes(user)) notice('chat.mention');
      else if (event.reply_to && authors.get(event.reply_to) === user) notice('chat.reply');
    }
  }
  return notices;
}
