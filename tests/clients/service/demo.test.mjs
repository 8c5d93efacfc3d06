// Promise: the demo page lets two people chat in real browsers, under a policy that allows nothing from elsewhere; it comes
// back after a reload and after the server was away, and shows texts as texts.
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';

import { chromium } from 'playwright-core';

import { join } from '../support/clients.mjs';
import { WITH_TOKENS, tokenOf } from '../support/jwt.mjs';
import { freePort, startService } from '../support/server.mjs';
import { ask, eventually } from '../support/wait.mjs';

/** The page tries again after 10 s at most. */
const SHOWN_MS = 25_000;

let browser;
before(async () => {
  browser = await chromium.launch({
    executablePath: process.env.CHROMIUM_BIN ?? '/usr/bin/chromium',
    args: ['--no-sandbox', '--disable-gpu', '--disable-background-networking', '--disable-component-update', '--disable-sync'],
  });
});
after(() => browser?.close());

/** The demo in a window of its own, with nothing remembered. */
async function open(t, service, problems = []) {
  const context = await browser.newContext();
  t.after(() => context.close());
  const page = await context.newPage();
  page.on('console', (message) => problems.push(message.text()));
  page.on('pageerror', (error) => problems.push(String(error)));
  page.on('request', (request) => {
    const url = request.url();
    if (!url.startsWith(service.url) && !url.startsWith('data:')) problems.push(url);
  });
  const answer = await page.goto(`${service.url}/demo`);
  assert.equal(answer.status(), 200);
  return page;
}

async function enter(page, meeting, token = '') {
  await page.fill('#meeting', meeting);
  await page.fill('#token', token);
  await page.click('#enter button');
  await isIn(page, meeting);
}

const says = async (page, selector, pattern) =>
  eventually(async () => assert.match(await page.textContent(selector), pattern), SHOWN_MS);
const isIn = async (page, meeting) => {
  await says(page, '#status', new RegExp(`^In ${meeting} as `));
  assert.ok(await page.isEnabled('#text'));
};
const send = async (page, text) => {
  await page.fill('#text', text);
  await page.press('#text', 'Enter');
};
/** What is shown, without names: exactly these, in this order. */
const shows = (page, ...texts) =>
  eventually(async () => assert.deepEqual(await page.locator('#log .text').allTextContents(), texts), SHOWN_MS);

describe('without tokens', () => {
  let service;
  before(async () => (service = await startService()));
  after(() => service.stop());

  test('two pages chat, see each other typing and present, and nothing is fetched from elsewhere', async (t) => {
    const problems = [];
    const ann = await open(t, service, problems);
    const bob = await open(t, service, problems);
    await enter(ann, 'pair');
    await enter(bob, 'pair');
    await says(ann, '#people', /^2 here: /);
    await bob.type('#text', 'hel');
    await says(ann, '#typing', /is typing/);
    await send(bob, 'hello');
    await shows(ann, 'hello');
    await shows(bob, 'hello');
    await says(ann, '#typing', /^$/);
    await send(ann, 'hello yourself');
    await shows(bob, 'hello', 'hello yourself');
    assert.equal(await ann.locator('#log .waiting').count(), 0);
    assert.deepEqual(problems, []);
    if (process.env.SCREENSHOT) await ann.screenshot({ path: process.env.SCREENSHOT, fullPage: true });
  });

  test('texts are shown as texts', async (t) => {
    const problems = [];
    const page = await open(t, service, problems);
    await enter(page, 'markup');
    const markup = '<img src=x onerror="document.title=1"><script>document.title=2</script>&amp;';
    await send(page, markup);
    await shows(page, markup);
    await page.reload();
    await isIn(page, 'markup');
    await shows(page, markup);
    assert.equal(await page.locator('#log img, #log script').count(), 0);
    assert.equal(await page.title(), 'chat-service: demo');
    assert.deepEqual(problems, []);
  });

  test('a reload resumes, and so does a lost connection', async (t) => {
    const page = await open(t, service);
    const other = await join(t, service.url);
    await ask(other, 'join_room', { meeting_id: 'resumed' });
    const say = async (text) => assert.ok((await ask(other, 'chat_message', { meeting_id: 'resumed', text })).ok);
    await say('one');
    await enter(page, 'resumed');
    await shows(page, 'one');
    await page.reload();
    await isIn(page, 'resumed');
    await say('two');
    await shows(page, 'one', 'two');

    // The page lives on, so only what was missed comes.
    const joins = [];
    page.on('websocket', (socket) =>
      socket.on('framesent', ({ payload }) => String(payload).includes('join_room') && joins.push(String(payload))),
    );
    const lost = page.waitForFunction(() => document.getElementById('text').disabled);
    await page.evaluate(() => ws.close());
    await lost;
    await say('three');
    await isIn(page, 'resumed');
    await say('four');
    await shows(page, 'one', 'two', 'three', 'four');
    assert.equal(joins.length, 1);
    assert.match(joins[0], /"since":\{"epoch":"\w+","seq":2\}/);
  });

  test('history comes by pages of 50, and changes of messages are shown', async (t) => {
    const page = await open(t, service);
    const other = await join(t, service.url);
    const meeting_id = 'long';
    await ask(other, 'join_room', { meeting_id });
    const sent = [];
    for (let n = 1; n <= 120; n++) sent.push(await ask(other, 'chat_message', { meeting_id, text: `n${n}` }));
    const texts = sent.map((_, n) => `n${n + 1}`);
    await enter(page, meeting_id);
    await shows(page, ...texts.slice(70));
    await page.click('#older');
    await shows(page, ...texts.slice(20));
    await page.click('#older');
    await shows(page, ...texts);
    await eventually(async () => assert.ok(await page.isDisabled('#older')));
    const [first, second, third] = sent;
    await ask(other, 'edit_message', { meeting_id, id: first.id, text: 'new' });
    await ask(other, 'delete_message', { meeting_id, id: second.id });
    await ask(other, 'react', { meeting_id, id: third.id, emoji: '\u{1f600}' });
    await shows(page, 'new (edited)', 'deleted', ...texts.slice(2));
    await says(page, '#log li:nth-child(3) .reactions', /\u{1f600} 1/u);
  });
});

test('what was sent while the server was away is sent once, and a log that begins anew is shown anew', async (t) => {
  const port = await freePort();
  let service = await startService({}, port);
  t.after(() => service.kill());
  const page = await open(t, service);
  await enter(page, 'away');
  await send(page, 'before');
  await shows(page, 'before');
  await service.kill();
  await says(page, '#status', /trying again/);
  // The form is closed meanwhile; somebody quick has sent a moment before.
  await page.evaluate(() => {
    document.getElementById('text').value = 'meanwhile';
    document.getElementById('say').onsubmit(new Event('submit'));
  });
  service = await startService({}, port);
  await isIn(page, 'away');
  await shows(page, 'meanwhile');
  assert.equal(await page.locator('#log .waiting').count(), 0);
});

test('with tokens: who one is, and what becomes of a bad one', async (t) => {
  const service = await startService(WITH_TOKENS);
  t.after(() => service.stop());
  const page = await open(t, service);
  await page.fill('#token', 'none');
  await page.click('#enter button');
  await says(page, '#status', /^Refused: token/);
  await enter(page, 'named', tokenOf('ann', { name: 'Ann' }));
  await says(page, '#status', /as Ann\.$/);
  await says(page, '#people', /^1 here: Ann$/);
  await send(page, 'mine');
  await says(page, '#log', /^Ann: mine/);
  await page.reload();
  await says(page, '#status', /as Ann\.$/);
});
