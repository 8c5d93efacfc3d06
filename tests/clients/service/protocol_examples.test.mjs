// Promise: docs/PROTOCOL.md is true: each of its examples is played against a server of its own, and no event, endpoint
// or error code is without one. The notation is explained in that document, under "How to read the examples".
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { describe, test } from 'node:test';

import { open } from '../support/clients.mjs';
import { request } from '../support/http.mjs';
import { API, API_KEY, WITH_KEY } from '../support/rest.mjs';
import { startService } from '../support/server.mjs';
import { WITH_USERS, token } from '../support/token.mjs';
import { PATIENCE_MS, ask, eventually, within } from '../support/wait.mjs';

const read = (path) => readFileSync(new URL(`../../../${path}`, import.meta.url), 'utf8');
const DOCUMENT = read('docs/PROTOCOL.md');

/** What a client can send, as `src/chat/service.rs` registers it. */
const CLIENT_EVENTS = [
  'message',
  'join_room',
  'leave_room',
  'typing',
  'chat_message',
  'edit_message',
  'delete_message',
  'react',
  'mark_read',
  'get_history',
  'get_presence',
  'notifications_get',
  'notifications_read',
  'auth_refresh',
];

/** What the server sends by itself. */
const SERVER_EVENTS = [
  'response',
  'ready',
  'auth_expiring',
  'auth_expired',
  'chat_message',
  'message_edited',
  'message_deleted',
  'message_reaction',
  'meeting_update',
  'notification',
  'unread',
  'typing',
  'presence_update',
  'read_receipt',
  'room_left',
  'resync',
  'server_draining',
  'chat_error',
];

const ENDPOINTS = [
  'GET /health',
  'GET /ready',
  'GET /metrics',
  'GET /meetings/{}/messages',
  'POST /meetings/{}/messages',
  'PATCH /meetings/{}/messages/{}',
  'DELETE /meetings/{}/messages/{}',
  'GET /meetings/{}/presence',
  'PUT /meetings/{}/read',
  'GET /notifications',
  'POST /notifications/read',
  'GET /unread',
  'POST /updates',
  'POST /publish',
  'POST /disconnect',
  'POST /revoke',
  'POST /meetings/{}/close',
  'DELETE /meetings/{}',
  'DELETE /users/{}',
  'GET /stats',
];

/** All but `UNSEEN_CODES`. */
const ERROR_CODES = [
  'invalid_payload',
  'too_large',
  'unknown_event',
  'unauthorized',
  'token_invalid',
  'token_expired',
  'forbidden',
  'not_found',
  'not_joined',
  'conflict',
  'room_closed',
  'room_full',
  'limit_reached',
  'rate_limited',
  'unavailable',
];

/** `internal` takes a fault of the server, and `draining` is reserved. The document has to name them. */
const UNSEEN_CODES = ['internal', 'draining'];

/** What may come at any time, and need not be shown where it is not the subject. */
const INCIDENTAL = ['ready', 'presence_update', 'unread', 'read_receipt'];

// ---------------------------------------------------------------- from text to steps

/** The blocks tagged `example`: settings of the server, and steps. */
function examples(document) {
  const found = [];
  let heading = '';
  const lines = document.split('\n');
  for (let at = 0; at < lines.length; at++) {
    heading = /^#+ (.*)$/.exec(lines[at])?.[1] ?? heading;
    const fence = /^```(.*)$/.exec(lines[at]);
    if (!fence) continue;
    const begin = at + 1;
    while (lines[++at] !== '```') assert.ok(at < lines.length, `line ${begin}: the block does not end`);
    const [tag, ...settings] = fence[1].split(' ');
    assert.ok(['example', 'js', 'json', 'text', 'http'].includes(tag), `line ${begin}: unknown block ${fence[1]}`);
    if (tag !== 'example') continue;
    found.push({ name: `${heading}, line ${begin}`, settings, steps: steps(lines.slice(begin, at), begin + 1) });
  }
  return found;
}

const HTTP_REQUEST = /^(GET|HEAD|POST|PUT|PATCH|DELETE|OPTIONS) (\/\S*)(?: \[(.+?)\])?(?: (\{.*))?$/s;
const HTTP_ANSWER = /^(\d{3})(?: \[(.+?)\])?(?: (\{.*|\.\.\.))?$/s;
const EVENT = /^([A-Za-z_][\w.-]*)(?: (?!\(no ack\))(.+?))?( \(no ack\))?$/s;

function steps(lines, first) {
  const whole = [];
  lines.forEach((line, n) => {
    if (/^\s+\S/.test(line) && whole.length > 0) whole.at(-1).text += ` ${line.trim()}`;
    else if (line) whole.push({ text: line, line: first + n });
  });
  return whole.map(({ text, line }) => {
    try {
      return { line, ...step(text) };
    } catch (error) {
      throw new Error(`line ${line} is not understood: ${text}`, { cause: error });
    }
  });
}

function step(text) {
  const [, direction] = /^\* (.+)$/.exec(text) ?? [];
  if (direction) return { does: 'direct', direction };
  const [, who, arrow, rest] = /^([a-z]+\d?)([<>]) (.+)$/.exec(text) ?? assert.fail('no arrow');
  if (arrow === '>') {
    const [, method, path, headers, body] = HTTP_REQUEST.exec(rest) ?? [];
    if (method) return { does: 'request', who, method, path, headers: parseHeaders(headers), body: json(body) };
    const [, event, payload, quiet] = EVENT.exec(rest) ?? assert.fail('no event');
    return { does: 'emit', who, event, payload: json(payload), wantsAck: !quiet };
  }
  const [, status, headers, body] = HTTP_ANSWER.exec(rest) ?? [];
  if (status) {
    const any = body === '...';
    return { does: 'answer', who, status: +status, headers: parseHeaders(headers), any, body: any ? undefined : json(body) };
  }
  const [, event, payload] = EVENT.exec(rest) ?? assert.fail('no event');
  return { does: event === 'ack' ? 'ack' : 'hear', who, event, payload: json(payload) };
}

/** One header, as a list of pairs. */
const parseHeaders = (text) => (text ? [text.split(/: (.*)/s).slice(0, 2)] : []);

/** Of an object, `...` stands for further members. */
const json = (text) => text && JSON.parse(text.replace(/(,?)\s*\.\.\.\s*}/g, '$1"...":true}'));

// ---------------------------------------------------------------- placeholders

const PLACEHOLDER = /^<([a-z]+)(?::(\w+))?>$/;
const KINDS = {
  ulid: (value) => /^[0-7][0-9A-HJKMNP-TV-Z]{25}$/.test(value),
  ms: (value) => Number.isInteger(value) && Math.abs(value - Date.now()) < 86_400_000,
  int: (value) => Number.isInteger(value) && value >= 0,
  sid: (value) => typeof value === 'string' && /^[\w-]{20}$/.test(value),
  epoch: (value) => typeof value === 'string' && /^\w{8,32}$/.test(value),
  text: (value) => typeof value === 'string' && value.length > 0,
};

/** Fails unless `actual` is as `expected` says; binds named placeholders in `names`. */
function match(actual, expected, names, path = 'it') {
  const [, kind, name] = (typeof expected === 'string' && PLACEHOLDER.exec(expected)) || [];
  if (kind === 'bytes') {
    assert.deepEqual(Buffer.from(actual), Buffer.from(name, 'hex'), path);
  } else if (kind) {
    const fits = KINDS[kind] ?? assert.fail(`${path}: unknown placeholder ${expected}`);
    assert.ok(fits(actual), `${path} is no ${kind}: ${JSON.stringify(actual)}`);
    if (name === undefined) return;
    if (names.has(name)) assert.deepEqual(actual, names.get(name), `${path} is not ${expected}`);
    names.set(name, actual);
  } else if (expected !== null && typeof expected === 'object') {
    assert.equal(Array.isArray(actual), Array.isArray(expected), `${path}: ${JSON.stringify(actual)}`);
    assert.ok(actual !== null && typeof actual === 'object', `${path}: ${JSON.stringify(actual)}`);
    const { '...': open, ...members } = Array.isArray(expected) ? { ...expected } : expected;
    const keys = Object.keys(actual).filter((key) => !open || key in members);
    assert.deepEqual(keys.sort(), Object.keys(members).sort(), `members of ${path}: ${JSON.stringify(actual)}`);
    for (const key of keys) match(actual[key], members[key], names, `${path}.${key}`);
  } else {
    assert.deepEqual(actual, expected, path);
  }
}

/** `value` with what its placeholders stand for when they are sent. */
function fill(value, stage) {
  if (Array.isArray(value)) return value.map((item) => fill(item, stage));
  if (value !== null && typeof value === 'object') {
    return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, fill(item, stage)]));
  }
  if (typeof value !== 'string' || !value.startsWith('<')) return value;
  const [, char, count] = /^<(\w)\*(\d+)>$/.exec(value) ?? [];
  if (count) return char.repeat(Number(count));
  const [, ahead] = /^<now\+(\d+)>$/.exec(value) ?? [];
  if (ahead) return Date.now() + Number(ahead);
  const [, whose] = /^<token:(\w+)>$/.exec(value) ?? [];
  if (whose) return stage.person(whose).token();
  const [, hex] = /^<bytes:([0-9a-f]+)>$/.exec(value) ?? [];
  if (hex) return Buffer.from(hex, 'hex');
  return stage.bound(value);
}

// ---------------------------------------------------------------- the play

/** One of the names in an example: a user with a token, perhaps with a socket; `service`, with the key; or `nobody`. */
class Person {
  claims = {};
  heard = [];
  acks = [];
  answers = [];
  #wake = () => {};

  constructor(name) {
    this.name = name;
    this.sub = name.replace(/\d$/, '');
  }

  token() {
    const seconds = Math.floor(Date.now() / 1000);
    const { exp = 3600, iat = 0, ...claims } = this.claims;
    const name = this.sub[0].toUpperCase() + this.sub.slice(1);
    return token({ sub: this.sub, name, ...claims, exp: seconds + exp, iat: seconds + iat });
  }

  credentials() {
    if (this.name === 'service') return { 'X-API-Key': API_KEY };
    return this.name === 'nobody' ? {} : { Authorization: `Bearer ${this.token()}` };
  }

  listen(socket) {
    this.socket = socket;
    socket.onAny((event, ...args) => {
      assert.ok(args.length <= 1, `${event} has ${args.length} arguments`);
      this.hear(event, args[0]);
    });
    socket.on('connect_error', ({ message, data }) => this.hear('connect_error', data ? { message, data } : { message }));
    socket.on('disconnect', (reason) => this.hear('disconnect', reason));
  }

  hear(event, payload) {
    this.heard.push({ event, payload });
    this.#wake();
  }

  /** The payload of the next event, which must be `event`. */
  async next(event) {
    const arrival = async () => {
      for (;;) {
        const first = this.heard.shift();
        if (first?.event === event) return first.payload;
        if (first && !INCIDENTAL.includes(first.event)) {
          assert.fail(`${this.name} hears ${first.event} ${JSON.stringify(first.payload)} and not ${event}`);
        }
        if (!first) await new Promise((wake) => (this.#wake = wake));
      }
    };
    return within(arrival(), `"${event}" at ${this.name}`, PATIENCE_MS * 2);
  }

  /** After this, whatever was sent to the socket has been heard. */
  async settle() {
    if (!this.socket?.connected) return;
    const before = this.heard.filter(({ event }) => event === 'response').length;
    await ask(this.socket, 'message', 'settled');
    const arrived = () => this.heard.filter(({ event }) => event === 'response').length > before;
    await eventually(async () => assert.ok(arrived(), 'the response'));
    this.heard.splice(this.heard.findLastIndex(({ event }) => event === 'response'), 1);
  }
}

class Stage {
  names = new Map();
  #people = new Map();

  constructor(t, service) {
    this.t = t;
    this.service = service;
  }

  person(name) {
    if (!this.#people.has(name)) this.#people.set(name, new Person(name));
    return this.#people.get(name);
  }

  bound(placeholder) {
    const [, , name] = PLACEHOLDER.exec(placeholder) ?? [];
    assert.ok(this.names.has(name), `${placeholder} stands for nothing yet`);
    return this.names.get(name);
  }

  async play(steps) {
    for (const { does, line, ...step } of steps) {
      try {
        await this[does](step.who && this.person(step.who), step);
      } catch (error) {
        error.message = `docs/PROTOCOL.md, line ${line}: ${error.message}`;
        throw error;
      }
    }
    for (const person of this.#people.values()) {
      await person.settle();
      const unshown = person.heard.filter(({ event }) => !INCIDENTAL.includes(event));
      assert.deepEqual(unshown, [], `what ${person.name} heard and the example does not show`);
      assert.equal(person.acks.length + person.answers.length, 0, `answers to ${person.name} that the example does not show`);
    }
  }

  async emit(person, { event, payload, wantsAck }) {
    if (event === 'CONNECT') return this.#connect(person, payload && fill(payload, this));
    if (event === 'DISCONNECT') return this.#leave(person);
    await eventually(async () => assert.ok(person.socket?.connected, `${person.name} is not connected`));
    const args = payload === undefined ? [] : [fill(payload, this)];
    if (!wantsAck) return void person.socket.emit(event, ...args);
    const ack = ask(person.socket, event, ...args);
    ack.catch(() => {}); // Told where it is waited for, if the play comes to that.
    person.acks.push(ack);
  }

  async ack(person, { payload }) {
    assert.ok(person.acks.length > 0, `${person.name} has asked for nothing`);
    match(await person.acks.shift(), payload, this.names);
  }

  async hear(person, { event, payload }) {
    match(await person.next(event), payload, this.names);
  }

  async request(person, { method, path, headers, body }) {
    const filled = path.replace(/<[^>]+>/g, (placeholder) => encodeURIComponent(this.bound(placeholder)));
    const url = this.service.url + (/^\/(socket\.io\/|api\/|metrics$|$)/.test(filled) ? filled : API + filled);
    const sent = body === undefined ? {} : { body: JSON.stringify(fill(body, this)) };
    const all = { ...(sent.body && { 'Content-Type': 'application/json' }), ...person.credentials(), ...Object.fromEntries(headers) };
    person.answers.push(await request(url, { method, headers: all, ...sent }));
  }

  async answer(person, { status, headers, any, body }) {
    const answer = person.answers.shift() ?? assert.fail(`${person.name} has asked for nothing`);
    assert.equal(answer.status, status, answer.text);
    for (const [name, value] of headers) {
      const given = answer.headers[name.toLowerCase()];
      match(value === '<int>' ? Number(given) : given, value, this.names, name);
    }
    if (any) return;
    if (body === undefined) assert.equal(answer.text, '');
    else match(answer.json(), body, this.names);
  }

  async direct(_, { direction }) {
    const [, names, what] = /^([a-z0-9, ]+): (.+)$/.exec(direction) ?? [];
    if (!names) return this.#scene(direction);
    const people = names.split(', ').map((name) => this.person(name));
    const [, verb, rest] = /^(token|connected|joined|wrote)(?: (.+))?$/.exec(what) ?? assert.fail(`what is: ${what}`);
    for (const person of people) {
      if (verb === 'token') {
        person.claims = json(rest);
        continue;
      }
      if (!person.socket) {
        this.#connect(person);
        await person.next('ready');
      }
      if (verb === 'wrote') await this.#write(person, rest);
      if (verb === 'joined') {
        for (const meeting_id of rest.split(', ')) {
          const ack = await ask(person.socket, 'join_room', { meeting_id });
          assert.equal(ack.ok, true, JSON.stringify(ack));
        }
      }
    }
    // What came of it is not part of the example.
    if (['connected', 'joined', 'wrote'].includes(verb)) {
      for (const person of this.#people.values()) {
        await person.settle();
        person.heard = [];
      }
    }
  }

  async #write(person, what) {
    const [, text, meeting_id, name] = /^"(.+)" in (\S+), <ulid:(\w+)>$/.exec(what) ?? assert.fail(`what is: ${what}`);
    const { ok, id, epoch } = await ask(person.socket, 'chat_message', { meeting_id, text });
    assert.equal(ok, true);
    match(epoch, '<epoch:e>', this.names);
    this.names.set(name, id);
  }

  async #scene(direction) {
    if (direction === 'the server stops') {
      this.isStopping = true;
      this.service.signal('SIGTERM');
      return eventually(async () => assert.equal((await this.service.get(`${API}/ready`)).status, 503));
    }
    const [, meeting] = /^the log of (\S+) is lost$/.exec(direction) ?? assert.fail(`what is: ${direction}`);
    // By so much else that the server, whose memory is small, has to drop it.
    const epoch = async () => {
      const headers = this.person('service').credentials();
      const reader = { ...headers, ...this.person('ann').credentials() };
      const { text } = await request(`${this.service.url}${API}/meetings/${meeting}/messages`, { headers: reader });
      return JSON.parse(text).epoch;
    };
    const first = await epoch();
    for (let n = 0; (await epoch()) === first; n++) {
      assert.ok(n < 100, 'the log is still there');
      const recipients = Array.from({ length: 480 }, (_, user) => `${user}`.padStart(120, 'x'));
      const update = { type: 'meeting.created', meeting_id: `other-${n}`, recipients, to: 'room' };
      const headers = { 'Content-Type': 'application/json', ...this.person('service').credentials() };
      const { status, text } = await request(`${this.service.url}${API}/updates`, { method: 'POST', headers, body: JSON.stringify(update) });
      assert.equal(status, 202, text);
    }
  }

  #connect(person, auth = { token: person.token() }) {
    person.listen(open(this.t, this.service.url, { auth }));
  }

  #leave(person) {
    person.socket.disconnect();
    person.heard = [];
  }
}

const SETTINGS = { ...WITH_USERS, ...WITH_KEY };

async function play(t, { settings, steps }) {
  const own = Object.fromEntries(settings.map((setting) => setting.split(/=(.*)/s).slice(0, 2)));
  const service = await startService({ ...SETTINGS, ...own });
  const stage = new Stage(t, service);
  try {
    await stage.play(steps);
  } finally {
    await (stage.isStopping ? service.kill() : service.stop());
  }
}

const EXAMPLES = examples(DOCUMENT);

// At once, as some are mostly waiting.
describe('an example', { concurrency: 4 }, () => {
  for (const example of EXAMPLES) test(example.name, (t) => play(t, example));
});

describe('there is an example', () => {
  const all = EXAMPLES.flatMap(({ steps }) => steps);

  for (const event of CLIENT_EVENTS) {
    test(`of ${event} with its ack`, () => {
      const hasBoth = ({ steps }) => {
        const at = steps.findIndex((step) => step.does === 'emit' && step.event === event && step.wantsAck);
        return at >= 0 && steps.slice(at).some((step) => step.does === 'ack' && step.payload.ok === true);
      };
      assert.ok(EXAMPLES.some(hasBoth));
    });
  }
  for (const event of SERVER_EVENTS) {
    test(`of ${event} from the server`, () => {
      assert.ok(all.some((step) => step.does === 'hear' && step.event === event));
    });
  }
  for (const endpoint of ENDPOINTS) {
    test(`of ${endpoint}`, () => {
      const pattern = new RegExp(`^${endpoint.replaceAll('{}', '[^/]+')}$`);
      const isIt = ({ does, method, path }) => does === 'request' && pattern.test(`${method} ${path.replace(/\?.*/, '')}`);
      assert.ok(all.some(isIt));
    });
  }
  for (const code of ERROR_CODES) {
    test(`of the error ${code}`, () => {
      const holds = (value) => value?.code === code || (typeof value === 'object' && Object.values(value ?? {}).some(holds));
      assert.ok(all.some((step) => ['ack', 'hear', 'answer'].includes(step.does) && holds(step.payload ?? step.body)));
    });
  }

  test('of everything that the server registers', () => {
    const registered = [...read('src/chat/service.rs').matchAll(/\.on\(\s*"(\w+)"/g)].map(([, event]) => event);
    assert.deepEqual(registered.sort(), [...CLIENT_EVENTS].sort());
    const codes = [...read('src/chat/error.rs').matchAll(/^ {4}([A-Z][A-Za-z]+),$/gm)].map(([, name]) =>
      name.replace(/(?!^)[A-Z]/g, (letter) => `_${letter}`).toLowerCase(),
    );
    assert.deepEqual(codes.sort(), [...ERROR_CODES, ...UNSEEN_CODES].sort());
    for (const code of codes) assert.match(DOCUMENT, new RegExp(`^\\| \`${code}\` \\| \\d{3} \\|`, 'm'));
  });
});

describe('what is wrong is noticed:', () => {
  const wrong = {
    'another value in an ack': ['* ann: joined m', 'ann> leave_room "m"', 'ann< ack {"ok":true,"meeting_id":"other"}'],
    'a field that is not there': ['* ann: connected', 'ann> message 1', 'ann< response {"data":1}', 'ann< ack {"ok":true,"x":1}'],
    'a field that is not shown': ['* ann: joined m', 'ann> leave_room "m"', 'ann< ack {"ok":true}'],
    'an event that is not shown': ['* ann: connected', 'ann> message 1', 'ann< ack {"ok":true}'],
    'an ack that is not shown': ['* ann: connected', 'ann> message 1', 'ann< response {"data":1}'],
    'another event': ['* ann: connected', 'ann> message 1', 'ann< typing {"data":1}'],
    'a value of another type': ['ann> GET /health', 'ann< 200 {"status":"<int>", ...}'],
    'another status': ['ann> GET /health', 'ann< 201 ...'],
    'two values under one name': ['ann> GET /health', 'ann< 200 {"status":"<text:a>","service":"<text:a>", ...}'],
  };
  for (const [name, lines] of Object.entries(wrong)) {
    test(name, async (t) => {
      await assert.rejects(play(t, { settings: [], steps: steps(lines, 1) }), /PROTOCOL.md, line [12345]:|the example does not show/);
    });
  }

  for (const line of ['ann: hello', 'ann> join_room {', 'ann< 200 {"a":}', 'ann joins m']) {
    test(`the line ${line}`, () => assert.throws(() => steps([line], 1), /line 1 is not understood/));
  }
});
