// Tells a story: a cast of stock clients in some meetings at one service, and at the end what everybody has seen.
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { createInterface } from 'node:readline';
import { setTimeout as pause } from 'node:timers/promises';

import { accepted, as, history } from '../chat.mjs';
import { request } from '../http.mjs';
import { RELEASES, TRANSPORTS } from '../clients.mjs';
import { token } from '../token.mjs';
import { ask, within } from '../wait.mjs';
import { Device } from './client.mjs';
import { chance } from './random.mjs';

const HERE = (path) => fileURLToPath(new URL(path, import.meta.url));
const PYTHON = process.env.STORY_PYTHON ?? HERE('../../../../target/venv/bin/python');
/** Bounds of what ends by itself, in ms: what takes longer does not end. */
const END_MS = 100_000;
/** What a slow machine may take longer than it was given, until enough has happened. */
const LONGER_MS = 120_000;

const range = (count) => Array.from({ length: count }, (_, n) => n);
const two = (n) => String(n).padStart(2, '0');

/** The Python devices, in a process of their own. */
class PythonDevices {
  clients = new Map();
  errors = '';

  constructor(cast) {
    for (const { name, user } of cast) this.clients.set(name, { name, user, records: [] });
    this.child = spawn(PYTHON, [HERE('../../python/story_client.py'), JSON.stringify(cast)], { stdio: 'pipe' });
    this.child.stderr.setEncoding('utf8').on('data', (text) => (this.errors = (this.errors + text).slice(-10_000)));
    this.child.stdin.on('error', () => {});
    this.lines = createInterface({ input: this.child.stdout })[Symbol.asyncIterator]();
    this.exited = new Promise((resolve) => {
      this.child.once('exit', (code, signal) => resolve({ code, signal }));
      this.child.once('error', (error) => resolve({ error }));
    });
    process.once('exit', this.kill);
  }

  kill = () => this.child.kill('SIGKILL');

  /** Says `word` and takes what comes until the process says `phase`. */
  async tell(word, phase) {
    this.child.stdin.write(`${word}\n`);
    const until = async () => {
      for (;;) {
        const { value, done } = await this.lines.next();
        if (done) {
          assert.fail(
            `the Python devices ended before "${phase}": ${JSON.stringify(await this.exited)}\n${this.errors}`,
          );
        }
        const line = JSON.parse(value);
        if (line.phase === phase) return;
        this.clients.get(line.name).records.push(line.record);
      }
    };
    await within(until(), `"${phase}" of the Python devices`, END_MS);
  }

  async end() {
    this.kill();
    await this.exited;
    process.removeListener('exit', this.kill);
  }
}

/**
 * Tells a story of at least `seconds`, and until `acked` messages were acked to and `cuts` cuts made by the JavaScript
 * devices; answers what a checker wants to know. `apiKey` lets it publish updates.
 */
export async function tell(t, service, cast) {
  const {
    seed,
    seconds,
    acked,
    cuts,
    historySize,
    apiKey,
    devices = 50,
    python = 10,
    userCount = 16,
    meetingCount = 8,
  } = cast;
  const users = range(userCount).map((n) => `user-${two(n)}`);
  const meetings = range(meetingCount).map((n) => `meeting-${n}`);
  const tokens = users.map((sub) => token({ sub, name: `Name of ${sub}` }));
  const common = { url: service.url, seed, meetings, users };
  const releases = Object.keys(RELEASES);
  const transports = Object.keys(TRANSPORTS);
  const stage = range(devices).map(
    (n) =>
      new Device({
        ...common,
        name: `js-${two(n)}`,
        user: users[n % userCount],
        token: tokens[n % userCount],
        release: releases[n % releases.length],
        transport: transports[Math.floor(n / releases.length) % transports.length],
        limits: true,
        isQuiet: n === 0,
      }),
  );
  const snakes = new PythonDevices(
    range(python).map((n) => {
      // Other users have Python devices than JavaScript ones, but for some who have both.
      const user = (n + devices) % userCount;
      const kind = n % 2 === 0 ? 'sync' : 'async';
      const transport = transports[Math.floor(n / 2) % transports.length];
      return { ...common, name: `py-${two(n)}`, user: users[user], token: tokens[user], kind, transport };
    }),
  );
  try {
    const dice = chance(seed, 'story');
    const running = stage.map((device) => device.run());
    const end = performance.now() + seconds * 1000;
    const last = end + LONGER_MS;
    const progress = () => {
      let [messages, cut] = [0, 0];
      for (const { records, messages: said, unacked } of stage) {
        messages += said - unacked.size;
        cut += records.reduce((sum, record) => sum + ('cut' in record ? 1 : 0), 0);
      }
      return { messages, cut };
    };
    for (let updates = 0; ; updates++) {
      await pause(500);
      const { messages, cut } = progress();
      const isEnough = messages >= acked && cut >= cuts;
      if (performance.now() > end && isEnough) break;
      assert.ok(performance.now() < last, `only ${messages} messages and ${cut} cuts`);
      const body = {
        id: `update-${updates}`,
        type: 'meeting.updated',
        meeting_id: dice.pick(meetings),
        to: 'room',
        data: { updates },
      };
      const answer = await request(`${service.url}/api/v1/chat/updates`, {
        method: 'POST',
        headers: { 'X-API-Key': apiKey, 'Content-Type': 'application/json' },
        body: JSON.stringify(body),
      });
      assert.equal(answer.status, 202, answer.text);
    }
    const enough = (promises, what) => within(Promise.all(promises), what, END_MS);
    for (const device of stage) device.isStopping = true;
    await Promise.all([enough(running, 'the devices to stop'), snakes.tell('stop', 'gathered')]);
    await enough(
      stage.map((device) => device.gather()),
      'the devices to gather',
    );
    await Promise.all([
      enough(
        stage.map((device) => device.settle()),
        'the devices to settle',
      ),
      snakes.tell('settle', 'settled'),
    ]);

    await snakes.tell('leave', 'done');
    for (const device of stage) device.leave();
    const clients = [...stage.map(({ name, user, records }) => ({ name, user, records })), ...snakes.clients.values()];
    return { historySize, clients, ...(await look(t, service, users, meetings)) };
  } finally {
    for (const device of stage) device.leave();
    await snakes.end();
  }
}

/** What stands in the service at the end. */
async function look(t, service, users, meetings) {
  const logs = {};
  const unread = {};
  const inboxes = {};
  const marks = {};
  for (const user of users) {
    const first = await as(t, service, user);
    marks[user] = {};
    for (const meeting_id of Object.keys(first.ready.unread.meetings)) {
      // A mark does not go back: the answer is where it stands.
      const { seq } = await accepted(ask(first, 'mark_read', { meeting_id, seq: 1 }));
      marks[user][meeting_id] = seq;
    }
    first.disconnect();
    const socket = await as(t, service, user);
    unread[user] = socket.ready.unread;
    const items = [];
    for (let more = true; more;) {
      const page = await accepted(ask(socket, 'notifications_get', { after: items.at(-1)?.nseq ?? 0, limit: 100 }));
      items.push(...page.items);
      inboxes[user] = { items, unread: page.unread };
      more = page.has_more;
    }
    if (user === users[0]) {
      for (const meeting_id of meetings) {
        const page = await accepted(ask(socket, 'get_history', { meeting_id, limit: 1 }));
        const { epoch, first_seq, top_seq } = page;
        logs[meeting_id] = { epoch, first_seq, top_seq, items: await history(socket, meeting_id) };
      }
    }
    socket.disconnect();
  }
  return { logs, marks, unread, inboxes };
}
