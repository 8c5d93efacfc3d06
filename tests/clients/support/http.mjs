// One HTTP exchange, with everything a test may want to see of it.
import http from 'node:http';

import { within } from './wait.mjs';

export const keepAlive = new http.Agent({ keepAlive: true, maxSockets: 64 });

/**
 * Sends a request; `response` is a promise, `abort` cuts its connection.
 * With `unfinished`, the body is sent but not ended.
 */
export function start(url, { method = 'GET', body, headers = {}, agent = keepAlive, unfinished = false } = {}) {
  const sent = http.request(url, { method, headers, agent });
  const response = new Promise((resolve, reject) => {
    sent.once('error', reject);
    sent.once('response', (answer) => {
      const chunks = [];
      answer.on('data', (chunk) => chunks.push(chunk));
      answer.once('error', reject);
      answer.once('end', () => {
        const bytes = Buffer.concat(chunks);
        const text = bytes.toString('utf8');
        resolve({ status: answer.statusCode, headers: answer.headers, bytes, text, json: () => JSON.parse(text) });
      });
    });
    sent.once('upgrade', (answer, socket) => {
      socket.destroy();
      resolve({ status: answer.statusCode, headers: answer.headers, text: '' });
    });
  });
  if (!unfinished) sent.end(body);
  else if (body === undefined) sent.flushHeaders();
  else sent.write(body);
  return { sent, response: within(response, `an answer to ${method} ${url}`), abort: () => sent.destroy() };
}

export const request = (url, options) => start(url, options).response;

/** The answer to a WebSocket handshake on `url`: 101, or what the server refused with. */
export function handshake(url, headers = {}) {
  return request(url, {
    agent: false,
    headers: {
      Connection: 'Upgrade',
      Upgrade: 'websocket',
      'Sec-WebSocket-Version': '13',
      'Sec-WebSocket-Key': 'dGhlIHNhbXBsZSBub25jZQ==',
      ...headers,
    },
  });
}
