// The Auth Service as the chat sees it: a key set, and somebody who decides rights. It counts, waits and fails as told.
import http from 'node:http';
import { EventEmitter, once as happens } from 'node:events';

import { record } from './wait.mjs';

/** An answer that never comes: what `decide` or `serve` gives for it. */
export const SILENCE = Symbol('silence');

export class AuthService {
  /** Members of the key set. */
  keys = [];
  /** How often the key set was asked for. */
  keyRequests = 0;
  /** Requests to any other path, as `METHOD path`. */
  strays = [];
  /** Answers a request for the key set: `{ status, body }` or `SILENCE`. */
  serve = () => ({ status: 200, body: { keys: this.keys } });
  /** Answers a question about a right, `{ user_id, meeting_id, action }`: `{ status, body }` or `SILENCE`; may wait. */
  decide = () => ({ status: 200, body: { allow: false } });

  #events = new EventEmitter();
  /** The questions about rights so far, with waits. */
  questions = record(this.#events, 'question');

  /** Ends with the test `t`, if there is one. */
  static async start(t) {
    const service = new AuthService();
    await service.up();
    t?.after(() => service.down());
    return service;
  }

  get url() {
    return `http://127.0.0.1:${this.port}`;
  }

  get jwksUrl() {
    return `${this.url}/.well-known/jwks.json`;
  }

  get authzUrl() {
    return `${this.url}/internal/authorize`;
  }

  /** Listens, after a `down` on the same port. */
  async up() {
    this.server = http.createServer((request, response) => this.#handle(request, response));
    this.server.listen(this.port ?? 0, '127.0.0.1');
    await happens(this.server, 'listening');
    this.port = this.server.address().port;
  }

  /** From now on connections are refused, and those that are open are cut. */
  async down() {
    if (!this.server) return;
    const closed = happens(this.server, 'close');
    this.server.close();
    this.server.closeAllConnections();
    this.server = undefined;
    await closed;
  }

  /** The questions about one meeting. */
  about(meeting_id) {
    return this.questions.items.filter((question) => question.meeting_id === meeting_id);
  }

  async #handle(request, response) {
    const chunks = [];
    try {
      for await (const chunk of request) chunks.push(chunk);
    } catch {
      return;
    }
    const { pathname } = new URL(request.url, this.url);
    let answer = { status: 404, body: { error: 'no such page' } };
    if (request.method === 'GET' && pathname === '/.well-known/jwks.json') {
      this.keyRequests++;
      answer = await this.serve();
    } else if (request.method === 'POST' && pathname === '/internal/authorize') {
      const question = JSON.parse(Buffer.concat(chunks).toString('utf8'));
      Object.defineProperty(question, 'headers', { value: request.headers });
      this.#events.emit('question', question);
      answer = await this.decide(question);
    } else {
      this.strays.push(`${request.method} ${pathname}`);
    }
    if (answer === SILENCE) return;
    const { status, body, headers = {} } = answer;
    response.writeHead(status, { 'Content-Type': 'application/json', ...headers });
    response.end(typeof body === 'string' ? body : JSON.stringify(body));
  }
}
