// One connection of a client, by a stock library or by hand, under one face:
//   `heard(event, payload)` and `ended(reason)` are called; `ask(event, payload, answered)`; `close()`.
// An `ask` that is not answered before the end is never answered.
import http from 'node:http';
import WebSocket from 'ws';

import { RELEASES, TRANSPORTS } from '../clients.mjs';

/** A stock client that does not come back by itself. */
export class StockLink {
  constructor({ url, token, release = '4.8', transport = 'websocket', heard, ended }) {
    // One connection for each request: on one that was used before, a request that broke is silently repeated by Node.
    this.agent = new http.Agent({ keepAlive: false });
    this.socket = RELEASES[release].io(url, {
      transports: TRANSPORTS[transport],
      forceNew: true,
      reconnection: false,
      timeout: 5000,
      auth: { token },
      agent: this.agent,
    });
    const end = (reason) => {
      if (this.isEnded) return;
      this.isEnded = true;
      this.socket.disconnect();
      ended(reason);
    };
    this.end = end;
    this.socket.on('disconnect', (reason) => end(reason));
    this.socket.on('connect_error', ({ message, data }) =>
      end(`connect_error ${message} ${JSON.stringify(data) ?? ''}`),
    );
    // Old clients tell what their dying connection still brought.
    this.socket.onAny((event, payload) => this.isEnded || heard(event, payload));
  }

  ask(event, payload, answered) {
    if (!this.isEnded) this.socket.emit(event, payload, (answer) => this.isEnded || answered(answer));
  }

  close() {
    this.end('own');
  }
}

/** A WebSocket by hand. */
export class RawLink {
  pending = new Map();
  asks = 0;

  constructor({ url, token, heard, ended }) {
    this.heard = heard;
    this.ended = ended;
    const address = `${url.replace(/^http/, 'ws')}/socket.io/?EIO=4&transport=websocket`;
    this.ws = new WebSocket(address, { perMessageDeflate: false, handshakeTimeout: 5000 });
    this.ws.on('message', (data) => this.isEnded || this.take(data.toString('utf8'), token));
    this.ws.on('error', (error) => this.end(`error ${error.message}`));
    this.ws.on('close', (code) => this.end(`close ${code}`));
  }

  take(frame, token) {
    if (frame === '2') this.ws.send('3');
    else if (frame[0] === '0') this.ws.send(`40${JSON.stringify({ token })}`);
    else if (frame.startsWith('42')) this.heard(...JSON.parse(frame.slice(2)));
    else if (frame.startsWith('43')) {
      const [, n, args] = /^43(\d+)(.*)$/s.exec(frame);
      const answered = this.pending.get(n);
      this.pending.delete(n);
      answered?.(...JSON.parse(args));
    } else if (frame.startsWith('44') || frame[0] === '1' || frame === '41') this.end(frame);
  }

  ask(event, payload, answered) {
    if (this.isEnded) return;
    const n = String(this.asks++);
    this.pending.set(n, answered);
    this.ws.send(`42${n}${JSON.stringify([event, payload])}`);
  }

  end(reason) {
    if (this.isEnded) return;
    this.isEnded = true;
    this.ws.terminate();
    this.ended(reason);
  }

  close() {
    this.end('own');
  }
}
