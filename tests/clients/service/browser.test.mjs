// Promise: a real browser shows the development page, and a page of another origin connects if it may and not if it may not.
import assert from 'node:assert/strict';
import { createServer } from 'node:http';
import { once as happens } from 'node:events';
import { readFileSync } from 'node:fs';
import { after, before, test } from 'node:test';

import { chromium } from 'playwright-core';

import { startService } from '../support/server.mjs';

const CLIENT = new URL('../node_modules/client-4.8/dist/socket.io.min.js', import.meta.url);

let browser;
let pages;
before(async () => {
  browser = await chromium.launch({
    executablePath: process.env.CHROMIUM_BIN ?? '/usr/bin/chromium',
    args: ['--no-sandbox', '--disable-gpu', '--disable-background-networking', '--disable-component-update', '--disable-sync'],
  });
  // Somebody else's web server: another port is another origin.
  const script = readFileSync(CLIENT);
  pages = createServer((request, response) => {
    const isScript = request.url === '/socket.io.js';
    response.setHeader('Content-Type', isScript ? 'text/javascript' : 'text/html');
    response.end(isScript ? script : '<!doctype html><title>app</title><script src="/socket.io.js"></script>');
  }).listen(0, '127.0.0.1');
  await happens(pages, 'listening');
});
after(async () => {
  await browser?.close();
  pages?.close();
});

/** Connects from a page of another origin; resolves to how it went. */
async function connectFrom(t, url, transports) {
  const page = await browser.newPage();
  t.after(() => page.close());
  await page.goto(`http://127.0.0.1:${pages.address().port}/`);
  return page.evaluate(
    ([url, transports]) =>
      new Promise((resolve) => {
        const socket = globalThis.io(url, { transports, reconnection: false });
        socket.on('connect_error', (error) => resolve({ refused: error.message }));
        socket.on('ready', async () => {
          const upgraded = () => socket.io.engine.transport.name === transports.at(-1);
          while (!upgraded()) await new Promise((wait) => socket.io.engine.once('upgrade', wait));
          socket.on('response', (response) => resolve({ transport: socket.io.engine.transport.name, response }));
          socket.emit('message', { text: 'ünï\u{1f600}', n: [1, 2.5, null] });
        });
      }),
    [url, transports],
  );
}

for (const transports of [['polling'], ['websocket'], ['polling', 'websocket']]) {
  test(`a page of this machine connects by ${transports.join(', then ')} in development`, async (t) => {
    const service = await startService();
    t.after(() => service.stop());
    assert.deepEqual(await connectFrom(t, service.url, transports), {
      transport: transports.at(-1),
      response: { data: { text: 'ünï\u{1f600}', n: [1, 2.5, null] } },
    });
  });
}

for (const transport of ['polling', 'websocket']) {
  test(`a page whose origin is not listed is refused by ${transport}`, async (t) => {
    const service = await startService({ CORS_ALLOWED_ORIGINS: 'https://app.example' });
    t.after(() => service.stop());
    const { refused, ...rest } = await connectFrom(t, service.url, [transport]);
    assert.deepEqual(rest, {});
    assert.match(refused, /xhr poll error|websocket error/);
    const { text } = await service.get('/metrics');
    assert.match(text, /chat_refusals_total\{code="forbidden_origin"\} [1-9]/);
  });
}

test('the development page is shown, without errors and without anything from elsewhere', async (t) => {
  const service = await startService();
  t.after(() => service.stop());
  const page = await browser.newPage();
  t.after(() => page.close());
  const problems = [];
  const requested = [];
  page.on('console', (message) => problems.push(message.text()));
  page.on('pageerror', (error) => problems.push(String(error)));
  page.on('request', (request) => requested.push(request.url()));
  const answer = await page.goto(`${service.url}/`);
  assert.equal(answer.status(), 200);
  assert.equal(await page.title(), 'chat-service');
  assert.match(await page.textContent('body'), /socket\.io-client/);
  assert.deepEqual(problems, []);
  assert.deepEqual(requested.filter((url) => !url.startsWith(service.url) && !url.startsWith('data:')), []);
  if (process.env.SCREENSHOT) await page.screenshot({ path: process.env.SCREENSHOT, fullPage: true });
});
