// Promise: the history checker finds every fault that it is there for, and none where there is none.
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import { fileURLToPath } from 'node:url';

import { check, checkText } from '../support/history/check.mjs';
import { range } from '../support/chat.mjs';

const M = 'm';
const E1 = 'epochepoch01';
const E2 = 'epochepoch02';

/** The message at `seq` of an epoch, said by ann if it is odd and by bob otherwise. */
const event = (seq, epoch = E1, more = {}) => {
  const sender = seq % 2 === 1 ? 'ann' : 'bob';
  const client_id = `${sender}-${epoch === E1 ? '' : 'again-'}${seq}`;
  const id = `${epoch}-${seq}`;
  return {
    event: 'chat_message',
    id,
    seq,
    epoch,
    meeting_id: M,
    sender,
    client_id,
    text: `says ${client_id}`,
    ...more,
  };
};
const events = (from, to, epoch) => range(from, to).map((seq) => event(seq, epoch));

const client = 'ann';
const connected = (name) => ({ op: 'connected', client: name, to: 'i-0' });
const gone = (name) => ({ op: 'gone', client: name, reason: 'transport close' });
const live = (name, seq, epoch) => ({ op: 'live', client: name, event: event(seq, epoch) });
const update = (name, seq, event_id) => ({
  op: 'live',
  client: name,
  event: { event: 'meeting_update', seq, epoch: E1, meeting_id: M, type: 'meeting.updated', event_id, data: {} },
});
const final = (name) => ({ op: 'final', client: name });
const ackOf = (ack) => ({ ok: true, meeting_id: M, epoch: E1, first_seq: 1, members: 2, ...ack });
const joining = (name, since) => ({ op: 'joining', client: name, meeting: M, ...(since && { since }) });
const joined = (name, ack, since) => [
  joining(name, since),
  { op: 'joined', client: name, meeting: M, ack: ackOf(ack) },
];
const enter = (name, seq = 0) => [connected(name), ...joined(name, { seq })];
/** Back again since `seq`, at `to` now. */
const back = (name, seq, to, ack) => [
  gone(name),
  connected(name),
  ...joined(name, { seq: to, recovered: true, events: events(seq + 1, to), ...ack }, { epoch: E1, seq }),
];
const sent = (seq, epoch = E1) => {
  const { sender, client_id, text } = event(seq, epoch);
  return { op: 'sent', client: sender, meeting: M, client_id, text };
};
const acked = (seq, epoch = E1, ack = {}) => {
  const { id, sender, client_id } = event(seq, epoch);
  return { op: 'acked', client: sender, meeting: M, client_id, ack: { id, seq, epoch, duplicate: false, ...ack } };
};
const said = (seq, epoch) => [sent(seq, epoch), acked(seq, epoch)];
const heard = (seq, epoch) => [live('ann', seq, epoch), live('bob', seq, epoch)];
const logOf = (top, { epoch = E1, items = events(1, top, epoch), first_seq = 1 } = {}) => ({
  op: 'log',
  meeting: M,
  ack: { epoch, first_seq, top_seq: top },
  items,
});
const end = (top, more) => [logOf(top, more), final('ann'), final('bob')];
const resync = (name, { epoch = E2, top_seq = 0, first_seq = 1, reason = 'epoch_changed' } = {}) => ({
  op: 'resync',
  client: name,
  resync: { meeting_id: M, reason, epoch, top_seq, first_seq },
});
const page = (name, after, items, { epoch = E1, first_seq = 1, top_seq }) => ({
  op: 'page',
  client: name,
  meeting: M,
  after,
  ack: { ok: true, epoch, items, first_seq, top_seq, has_more: false },
});

/** Both come and all of `seqs` is said and heard. */
const talk = (from, to, epoch) => range(from, to).flatMap((seq) => [...said(seq, epoch), ...heard(seq, epoch)]);
const start = [...enter('ann'), ...enter('bob')];
const rulesOf = (records) => [...new Set(check(records).faults.map(({ rule }) => rule))].sort();

/** The history without the records that are so. */
const without = (records, isSo) => records.filter((record) => !isSo(record));
const isLive = (name, seq) => (record) => record.op === 'live' && record.client === name && record.event.seq === seq;
/** The history with `change(record)` (one record or several) in the place of the first record that is so. */
const change = (records, isSo, by) => {
  const at = records.findIndex(isSo);
  assert.ok(at >= 0, 'there is such a record');
  return [...records.slice(0, at), ...[by(structuredClone(records[at]))].flat(), ...records.slice(at + 1)];
};

const GOOD = [...start, ...talk(1, 6), ...end(6)];

describe('what is right', () => {
  const resynced = (name) => [resync(name), ...range(1, 2).map((seq) => live(name, seq, E2))];
  const histories = {
    'all live': GOOD,
    'an ack before, between and behind the deliveries': [
      ...start,
      sent(1),
      live('bob', 1),
      acked(1),
      live('ann', 1),
      sent(2),
      ...heard(2),
      acked(2),
      ...end(2),
    ],
    'sent again after no answer, and acked as a duplicate': [
      ...start,
      sent(1),
      ...heard(1),
      ...back('ann', 1, 1, { events: [] }),
      sent(1),
      acked(1, E1, { duplicate: true }),
      ...end(1),
    ],
    'two tries on one connection, both acked': [
      ...start,
      sent(1),
      sent(1),
      ...heard(1),
      acked(1, E1, { duplicate: true }),
      acked(1),
      ...end(1),
    ],
    'refused for now and sent again': [
      ...start,
      sent(1),
      { op: 'refused', client, meeting: M, client_id: 'ann-1', code: 'unavailable', isFinal: false },
      ...talk(1, 1),
      ...end(1),
    ],
    'resumed with all that was missed': [
      ...start,
      ...talk(1, 2),
      gone('bob'),
      ...range(3, 5).flatMap((seq) => [...said(seq), live('ann', seq)]),
      ...back('bob', 2, 5),
      ...talk(6, 6),
      ...end(6),
    ],
    'not resumed because of too much, and read by pages while it goes on': [
      ...start,
      gone('bob'),
      ...range(1, 301).flatMap((seq) => [...said(seq), live('ann', seq)]),
      connected('bob'),
      ...joined('bob', { seq: 301, recovered: false, reason: 'too_many', events: [] }, { epoch: E1, seq: 0 }),
      page('bob', 0, events(1, 200), { top_seq: 301 }),
      ...talk(302, 302),
      page('bob', 200, events(201, 302), { top_seq: 302 }),
      ...end(302),
    ],
    'not resumed because of the window': [
      ...start,
      gone('bob'),
      ...range(1, 9).flatMap((seq) => [...said(seq), live('ann', seq)]),
      connected('bob'),
      ...joined('bob', { seq: 9, first_seq: 5, recovered: false, reason: 'window' }, { epoch: E1, seq: 0 }),
      page('bob', 4, events(5, 9), { first_seq: 5, top_seq: 9 }),
      ...end(9, { first_seq: 5, items: events(5, 9) }),
    ],
    'gone while it reads pages: it asks since the last one': [
      ...start,
      gone('bob'),
      ...range(1, 301).flatMap((seq) => [...said(seq), live('ann', seq)]),
      connected('bob'),
      ...joined('bob', { seq: 301, recovered: false, reason: 'too_many', events: [] }, { epoch: E1, seq: 0 }),
      page('bob', 0, events(1, 100), { top_seq: 301 }),
      ...talk(302, 302),
      ...back('bob', 100, 302),
      ...end(302),
    ],
    'a lost log, told to whoever is there': [
      ...start,
      ...talk(1, 3),
      { op: 'loss' },
      ...said(1, E2),
      ...said(2, E2),
      ...resynced('ann'),
      ...resynced('bob'),
      ...end(2, { epoch: E2 }),
    ],
    'a lost log, told to whoever comes back': [
      ...start,
      ...talk(1, 3),
      gone('bob'),
      { op: 'loss', meetings: [M] },
      resync('ann'),
      ...said(1, E2),
      live('ann', 1, E2),
      connected('bob'),
      ...joined('bob', { epoch: E2, seq: 1, recovered: false, reason: 'epoch' }, { epoch: E1, seq: 3 }),
      page('bob', 0, events(1, 1, E2), { epoch: E2, top_seq: 1 }),
      ...end(1, { epoch: E2 }),
    ],
    'told of a lost log while it joins': [
      ...start,
      ...talk(1, 3),
      gone('bob'),
      { op: 'loss' },
      connected('bob'),
      joining('bob', { epoch: E1, seq: 3 }),
      resync('bob'),
      { op: 'joined', client: 'bob', meeting: M, ack: ackOf({ epoch: E2, seq: 0, recovered: false, reason: 'epoch' }) },
      resync('ann'),
      ...end(0, { epoch: E2 }),
    ],
    'a lost tail: the rest goes on under another epoch': [
      ...start,
      ...talk(1, 2),
      { op: 'safe' },
      ...talk(3, 4),
      { op: 'loss' },
      ...['ann', 'bob'].flatMap((name) => [
        resync(name, { top_seq: 2 }),
        page(name, 0, events(1, 2), { epoch: E2, top_seq: 2 }),
      ]),
      ...said(3, E2),
      ...heard(3, E2),
      ...end(3, { epoch: E2, items: [...events(1, 2), event(3, E2)] }),
    ],
    'left and joined anew, without what came between': [
      ...start,
      { op: 'left', client: 'bob', meeting: M },
      ...said(1),
      live('ann', 1),
      ...joined('bob', { seq: 1 }),
      ...talk(2, 2),
      ...end(2),
    ],
    'updates among the messages': [
      ...start,
      ...['ann', 'bob'].flatMap((name) => [update(name, 1, 'u-1'), update(name, 2, 'u-2')]),
      ...end(2, { items: [update('', 1, 'u-1').event, update('', 2, 'u-2').event] }),
    ],
    'told to go': [...start, { op: 'told', client, event: 'server_draining', payload: {} }, ...end(0)],
  };
  for (const [name, records] of Object.entries(histories)) {
    test(name, () => assert.deepEqual(check(records).faults, []));
  }

  test('is counted', () => {
    const { counts } = check(histories['resumed with all that was missed']);
    assert.deepEqual([counts.sent, counts.acked, counts.resumed, counts.connects], [6, 6, 1, 3]);
    assert.equal(counts.delivered, 12);
  });
});

describe('what is wrong', () => {
  const lost = [...start, ...talk(1, 3), { op: 'loss' }];
  /** The name, the rules that find it, all of them, and the history. */
  const histories = [
    ['a message that one member never got', ['missing'], without(GOOD, isLive('bob', 3))],
    ['a last message that one member never got', ['missing'], without(GOOD, isLive('bob', 6))],
    ['a message that came twice', ['twice'], change(GOOD, isLive('bob', 3), (record) => [record, record])],
    [
      'a message that came again later',
      ['twice'],
      change(GOOD, isLive('bob', 5), (record) => [record, live('bob', 3)]),
    ],
    [
      'two messages in the wrong order',
      ['missing', 'order'],
      change(without(GOOD, isLive('bob', 3)), isLive('bob', 4), (record) => [record, live('bob', 3)]),
    ],
    [
      'a message that is logged twice',
      ['log', 'twice'],
      [
        ...start,
        ...talk(1, 2),
        ...['ann', 'bob'].map((name) => ({ op: 'live', client: name, event: { ...event(1), id: 'other', seq: 3 } })),
        ...end(3, { items: [...events(1, 2), { ...event(1), id: 'other', seq: 3 }] }),
      ],
    ],
    [
      'an update that is logged twice',
      ['log', 'twice'],
      [
        ...start,
        ...['ann', 'bob'].flatMap((name) => [update(name, 1, 'u-1'), update(name, 2, 'u-1')]),
        ...end(2, { items: [update('', 1, 'u-1').event, update('', 2, 'u-1').event] }),
      ],
    ],
    [
      'a seq with two contents, seen by two members',
      ['acked', 'reused', 'twice'],
      change(GOOD, isLive('ann', 3), (record) => ({ ...record, event: { ...event(5), seq: 3 } })),
    ],
    [
      'a seq that is given again after a loss',
      ['acked', 'lost', 'reused', 'twice'],
      [
        ...lost,
        // The last one is lost, and its place is given to another without another epoch.
        { op: 'sent', client, meeting: M, client_id: 'ann-x', text: 'x' },
        { op: 'acked', client, meeting: M, client_id: 'ann-x', ack: { id: 'x', seq: 3, epoch: E1, duplicate: false } },
        ...['ann', 'bob'].map((name) => ({
          op: 'live',
          client: name,
          event: event(3, E1, { id: 'x', client_id: 'ann-x', text: 'x' }),
        })),
        ...end(3, { items: [...events(1, 2), event(3, E1, { id: 'x', client_id: 'ann-x', text: 'x' })] }),
      ],
    ],
    [
      'an ack of something that nobody got and no log has',
      ['acked', 'lost'],
      [...start, ...talk(1, 2), sent(3), acked(3), ...end(2)],
    ],
    [
      'an ack of a place where something else stands',
      ['acked'],
      change(
        GOOD,
        (record) => record.op === 'acked' && record.ack.seq === 3,
        (record) => ({
          ...record,
          ack: { ...record.ack, seq: 4 },
        }),
      ),
    ],
    [
      'a message that was acked and is not in the log, though somebody heard it',
      ['log', 'lost'],
      change(
        GOOD,
        ({ op }) => op === 'log',
        () => logOf(6, { items: without(events(1, 6), ({ seq }) => seq === 4) }),
      ),
    ],
    ['a message that was never acked', ['unacked'], without(GOOD, ({ op, ack }) => op === 'acked' && ack.seq === 3)],
    [
      'a message that was refused for good',
      ['unacked'],
      [
        ...start,
        sent(1),
        { op: 'refused', client, meeting: M, client_id: 'ann-1', code: 'forbidden', isFinal: true },
        ...end(0),
      ],
    ],
    [
      'two acks of one message that differ',
      ['acks'],
      [...start, sent(1), ...talk(1, 1), acked(1, E1, { seq: 2, duplicate: true }), ...talk(2, 2), ...end(2)],
    ],
    ['two acks that both say it is new', ['acks'], [...start, sent(1), ...talk(1, 1), acked(1), ...end(1)]],
    [
      'an ack of something that was never sent',
      ['acks', 'content'],
      without(GOOD, ({ op, client_id }) => op === 'sent' && client_id === 'ann-3'),
    ],
    [
      'a text that was not sent',
      ['content'],
      GOOD.map((record) => {
        const other = (one) => (one.seq === 3 ? { ...one, text: 'other' } : one);
        if (record.op === 'live') return { ...record, event: other(record.event) };
        return record.op === 'log' ? { ...record, items: record.items.map(other) } : record;
      }),
    ],
    ...[
      ['with a hole', [3, 5]],
      ['without the first', [4, 5]],
      ['without the last', [3, 4]],
      ['with nothing', []],
      ['with one too many', [2, 3, 4, 5]],
      ['in the wrong order', [4, 3, 5]],
    ].map(([name, seqs]) => [
      `recovered: true ${name}`,
      seqs.includes(2) ? ['recovered', 'twice'] : ['recovered'],
      [
        ...start,
        ...talk(1, 2),
        gone('bob'),
        ...range(3, 5).flatMap((seq) => [...said(seq), live('ann', seq)]),
        ...back('bob', 2, 5, { events: seqs.map((seq) => event(seq)) }),
        ...end(5),
      ],
    ]),
    [
      'recovered: true in another epoch',
      ['recovered'],
      [
        ...lost,
        gone('bob'),
        connected('bob'),
        ...joined('bob', { epoch: E2, seq: 3, recovered: true, events: [] }, { epoch: E1, seq: 3 }),
        resync('ann', { top_seq: 3 }),
        page('ann', 0, events(1, 3), { epoch: E2, top_seq: 3 }),
        ...end(3, { epoch: E2, items: events(1, 3) }),
      ],
    ],
    [
      'recovered: false without a reason for it',
      ['missing', 'recovered'],
      [
        ...start,
        ...talk(1, 2),
        gone('bob'),
        connected('bob'),
        ...joined('bob', { seq: 2, recovered: false, reason: 'window' }, { epoch: E1, seq: 2 }),
        ...end(2),
      ],
    ],
    [
      'recovered: false, because of an epoch that is the same',
      ['recovered'],
      [
        ...start,
        ...talk(1, 2),
        gone('bob'),
        connected('bob'),
        ...joined('bob', { seq: 2, recovered: false, reason: 'epoch' }, { epoch: E1, seq: 2 }),
        page('bob', 0, events(1, 2), { top_seq: 2 }),
        ...end(2),
      ],
    ],
    [
      'nothing said of a recovery that was asked for',
      ['missing', 'recovered'],
      [...start, gone('bob'), connected('bob'), ...joined('bob', { seq: 0 }, { epoch: E1, seq: 0 }), ...end(0)],
    ],
    [
      'pages that were not read',
      ['missing'],
      [
        ...start,
        gone('bob'),
        ...range(1, 301).flatMap((seq) => [...said(seq), live('ann', seq)]),
        connected('bob'),
        ...joined('bob', { seq: 301, recovered: false, reason: 'too_many', events: [] }, { epoch: E1, seq: 0 }),
        page('bob', 0, events(1, 300), { top_seq: 301 }),
        ...end(301),
      ],
    ],
    [
      'a page with a hole',
      ['missing'],
      [
        ...start,
        gone('bob'),
        ...range(1, 301).flatMap((seq) => [...said(seq), live('ann', seq)]),
        connected('bob'),
        ...joined('bob', { seq: 301, recovered: false, reason: 'too_many', events: [] }, { epoch: E1, seq: 0 }),
        page(
          'bob',
          0,
          without(events(1, 301), ({ seq }) => seq === 7),
          { top_seq: 301 },
        ),
        ...end(301),
      ],
    ],
    [
      'a page without items where there are some',
      ['missing'],
      [...start, ...talk(1, 2), page('bob', 0, [], { top_seq: 2 }), ...end(2)],
    ],
    [
      'another epoch that nobody was told of',
      ['epoch'],
      [
        ...lost,
        ...said(1, E2),
        live('ann', 1, E2),
        resync('bob', { top_seq: 0 }),
        live('bob', 1, E2),
        ...end(1, { epoch: E2 }),
      ],
    ],
    [
      'another epoch that one member has not noticed to the end',
      ['epoch'],
      [...lost, resync('ann'), ...said(1, E2), live('ann', 1, E2), ...end(1, { epoch: E2 })],
    ],
    [
      'another epoch though nothing was lost',
      ['epoch', 'lost'],
      [...start, ...talk(1, 2), resync('ann'), resync('bob'), ...end(0, { epoch: E2 })],
    ],
    [
      'another epoch in a meeting that was not among the lost ones',
      ['epoch', 'log'],
      [...start, { op: 'loss', meetings: ['other'] }, resync('ann'), resync('bob'), ...end(0, { epoch: E2 })],
    ],
    [
      'an epoch that comes back',
      ['epoch'],
      [...lost, resync('ann'), resync('bob'), resync('ann', { epoch: E1 }), resync('ann'), ...end(0, { epoch: E2 })],
    ],
    [
      'an epoch that comes back in a join',
      ['epoch'],
      [
        ...lost,
        resync('ann'),
        resync('bob'),
        gone('bob'),
        connected('bob'),
        ...joined('bob', { seq: 0, recovered: false, reason: 'epoch' }, { epoch: E2, seq: 0 }),
        resync('bob'),
        ...end(0, { epoch: E2 }),
      ],
    ],
    [
      'events of a join that has not recovered',
      ['recovered', 'twice'],
      [
        ...lost,
        gone('bob'),
        connected('bob'),
        resync('ann', { top_seq: 2 }),
        page('ann', 0, events(1, 2), { epoch: E2, top_seq: 2 }),
        ...joined(
          'bob',
          { epoch: E2, seq: 2, recovered: false, reason: 'epoch', events: [event(2)] },
          { epoch: E1, seq: 3 },
        ),
        page('bob', 0, events(1, 1), { epoch: E2, top_seq: 2 }),
        page('bob', 1, events(2, 2), { epoch: E2, top_seq: 2 }),
        ...end(2, { epoch: E2, items: events(1, 2) }),
      ],
    ],
    [
      'a resync for no known reason',
      ['epoch'],
      [
        ...start,
        ...talk(1, 2),
        resync('ann', { epoch: E1, top_seq: 4, first_seq: 4, reason: 'other' }),
        page('ann', 3, events(4, 4), { first_seq: 4, top_seq: 4 }),
        gone('bob'),
        ...said(3),
        ...said(4),
        connected('bob'),
        ...joined('bob', { seq: 4, first_seq: 4, recovered: false, reason: 'window' }, { epoch: E1, seq: 2 }),
        page('bob', 3, events(4, 4), { first_seq: 4, top_seq: 4 }),
        ...end(4, { first_seq: 4, items: events(4, 4) }),
      ],
    ],
    [
      'a resync to the epoch that it was',
      ['epoch'],
      [...lost, resync('ann', { epoch: E1, top_seq: 3 }), page('ann', 0, events(1, 3), { top_seq: 3 }), ...end(3)],
    ],
    [
      'a resync over what the log still has',
      ['missing'],
      [...start, ...talk(1, 2), resync('ann', { epoch: E1, top_seq: 2, reason: 'window_exceeded' }), ...end(2)],
    ],
    [
      'an acked message that a loss took although it was safe',
      ['lost'],
      [...start, ...talk(1, 3), { op: 'safe' }, { op: 'loss' }, resync('ann'), resync('bob'), ...end(0, { epoch: E2 })],
    ],
    [
      'an acked message of the new epoch that is not in its log',
      ['acked', 'lost'],
      [...lost, resync('ann'), resync('bob'), ...said(1, E2), ...end(0, { epoch: E2 })],
    ],
    [
      'a live event for somebody who is not in the meeting',
      ['stray'],
      [...start, { op: 'left', client: 'bob', meeting: M }, ...talk(1, 1), ...joined('bob', { seq: 1 }), ...end(1)],
    ],
    [
      'a live event of another meeting',
      ['final', 'log', 'stray'],
      change(GOOD, isLive('bob', 3), (record) => [
        record,
        { ...record, event: { ...record.event, meeting_id: 'other' } },
      ]),
    ],
    [
      'an event of another meeting in a join',
      ['reused', 'stray'],
      [
        ...start,
        ...talk(1, 2),
        ...back('bob', 2, 3, { events: [event(3, E1, { meeting_id: 'other' })] }),
        ...said(3),
        live('ann', 3),
        ...end(3),
      ],
    ],
    ['a join that was not asked for', ['stray'], [...start, joined('bob', { seq: 0 })[1], ...end(0)]],
    [
      'recovered without since',
      ['recovered'],
      [
        ...start,
        connected('cleo'),
        ...joined('cleo', { seq: 0, recovered: true, events: [] }),
        final('cleo'),
        ...end(0),
      ],
    ],
    [
      'put out of the meeting',
      ['stray'],
      [...start, { op: 'told', client, event: 'room_left', payload: {} }, ...end(0)],
    ],
    [
      'a resync without being in the meeting',
      ['stray'],
      [
        ...start,
        { op: 'loss' },
        { op: 'left', client: 'bob', meeting: M },
        resync('bob'),
        resync('ann'),
        ...joined('bob', { epoch: E2, seq: 0 }),
        ...end(0, { epoch: E2 }),
      ],
    ],
    [
      'a log with a hole',
      ['log'],
      change(
        GOOD,
        ({ op }) => op === 'log',
        (log) => ({ ...log, ack: { ...log.ack, first_seq: 0 } }),
      ),
    ],
    ['a log that nobody looked at', ['log'], without(GOOD, ({ op }) => op === 'log')],
    [
      'a client that never came to the end',
      ['final'],
      without(GOOD, (record) => record.op === 'final' && record.client === 'bob'),
    ],
    [
      'a client that was in no meeting, and not connected at the end',
      ['final'],
      [...GOOD, connected('cleo'), gone('cleo'), final('cleo')],
    ],
    [
      'a client that was not connected at the end',
      ['final'],
      change(
        GOOD,
        ({ op }) => op === 'final',
        (record) => [gone('ann'), record],
      ),
    ],
    [
      'a client that asks since what it does not have',
      ['recovered', 'twice'],
      [...start, ...talk(1, 2), ...back('bob', 1, 2, {}), ...end(2)],
    ],
  ];
  for (const [name, rules, records] of histories) {
    test(name, () => assert.deepEqual(rulesOf(records), rules, JSON.stringify(check(records).faults, null, 1)));
  }

  test('is told up to a bound, and how much more there is', () => {
    const many = [...start, ...range(1, 100).map((seq) => sent(seq)), ...end(0)];
    const { faults } = check(many);
    assert.deepEqual([faults.length, faults.at(-1).text], [61, 'and 40 more']);
  });

  test('is not what cannot be understood: that throws', () => {
    for (const record of [{ op: 'other', client }, { op: 'live' }, {}]) {
      assert.throws(() => check([record]), /not a record/);
    }
    assert.throws(() => checkText('{"op":"loss"}\n{'), /^Error: line 2: /);
  });
});

describe('as a program', () => {
  const PROGRAM = fileURLToPath(new URL('../support/history/check.mjs', import.meta.url));
  const run = (...args) => spawnSync(process.execPath, [PROGRAM, ...args], { encoding: 'utf8' });

  test('it ends with 0 if all is right, with 1 and a line for each fault if not, and with 2 if it cannot tell', (t) => {
    const dir = mkdtempSync(join(tmpdir(), 'chat-check-'));
    t.after(() => rmSync(dir, { recursive: true }));
    const path = join(dir, 'history.jsonl');
    const lines = (records) => records.map((record) => `${JSON.stringify(record)}\n`).join('');

    writeFileSync(path, lines(GOOD));
    const good = run(path);
    assert.deepEqual([good.status, JSON.parse(good.stdout).faults], [0, 0], good.stderr);

    writeFileSync(path, lines(without(GOOD, isLive('bob', 3))));
    const bad = run(path);
    assert.equal(bad.status, 1, bad.stderr);
    const [first, ...rest] = bad.stdout.trim().split('\n');
    assert.match(first, /^missing: bob: m: 4 came live, 3 was next$/);
    assert.equal(JSON.parse(rest.at(-1)).faults, 1);

    writeFileSync(path, 'no history');
    assert.deepEqual([run(path).status, run(join(dir, 'absent')).status, run().status], [2, 2, 2]);
  });
});
