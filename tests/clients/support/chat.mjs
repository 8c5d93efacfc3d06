// What tests of the chat do again and again: be a user, join, talk, and look at answers.
import assert from 'node:assert/strict';
import { EventEmitter } from 'node:events';

import { join, open } from './clients.mjs';
import { token } from './token.mjs';
import { ask, record, within } from './wait.mjs';

/** The events that have a seq. */
export const LOGGED = ['chat_message', 'message_edited', 'message_deleted', 'message_reaction', 'meeting_update'];

export const ULID = /^[0-7][0-9A-HJKMNP-TV-Z]{25}$/;

/** The id of a message that no log holds. */
export const NO_MESSAGE = '01ARZ3NDEKTSV4RRFFQ69G5FAV';

let last = 0;

/** A name for a meeting or a user that no other test of the file uses. */
export const fresh = (name = 'meeting') => `${name}-${++last}`;

/** The integers `from` to `to`, both included. */
export const range = (from, to) => Array.from({ length: to - from + 1 }, (_, n) => from + n);

/** A connected socket of the user `sub`, called as the id says; `claims` go into the token. */
export function as(t, service, sub, claims = {}, options = {}) {
  return join(t, service.url, { auth: { token: token({ sub, name: `Name of ${sub}`, ...claims }) }, ...options });
}

/** A socket of the user that has joined the meeting; the ack is its `joined`. */
export async function member(t, service, meeting_id, sub = fresh('user'), claims = {}) {
  const socket = await as(t, service, sub, claims);
  socket.joined = await accepted(ask(socket, 'join_room', { meeting_id }));
  return socket;
}

/** What becomes of a CONNECT of the user: `{ ready }`, or `{ error }` with the error's data. */
export function tryToConnect(t, service, sub) {
  const socket = open(t, service.url, { auth: { token: token({ sub }) } });
  const outcome = new Promise((resolve) => {
    socket.once('ready', (ready) => resolve({ ready }));
    socket.once('connect_error', ({ message, data }) => resolve({ error: data ?? { message } }));
  });
  return within(outcome, 'ready or connect_error');
}

/** The ack of a message that may be refused. */
export const say = (socket, meeting_id, text, more) => ask(socket, 'chat_message', { meeting_id, text, ...more });

/** The ack of a message that must be taken. */
export const said = (...message) => accepted(say(...message));

/** The ack, which must be a success. */
export async function accepted(answer) {
  const ack = await answer;
  assert.equal(ack.ok, true, JSON.stringify(ack));
  return ack;
}

/** The error of an ack, which must be a failure with that code. */
export async function refused(answer, code) {
  const ack = await answer;
  assert.deepEqual([ack.ok, ack.error?.code], [false, code], JSON.stringify(ack));
  assert.ok(typeof ack.error.message === 'string' && ack.error.message.length > 0, 'an error has a message');
  return ack.error;
}

/** After this, whatever the server had sent to `socket` has been seen by it. */
export const settled = (socket) => accepted(ask(socket, 'message', 'settled'));

/** All logged events that `socket` gets from now on, in their order and in the form in which a log shows them. */
export function log(socket) {
  const all = new EventEmitter();
  const recorded = record(all, 'logged');
  for (const event of LOGGED) socket.on(event, (payload) => all.emit('logged', { event, ...payload }));
  return recorded;
}

/** The whole log of a meeting as far as it is kept, by as many pages as it takes. */
export async function history(socket, meeting_id, limit = 100) {
  const items = [];
  for (;;) {
    const page = await accepted(ask(socket, 'get_history', { meeting_id, after_seq: items.at(-1)?.seq ?? 0, limit }));
    items.push(...page.items);
    if (!page.has_more) return items;
    assert.ok(page.items.length > 0, 'a page that promises more is not empty');
  }
}

export const seqs = (events) => events.map((event) => event.seq);
