// The program of a `NodePeer`: a Socket.IO server of Node with the classic Redis adapter, which runs what it is sent.
// Argument: the URL of Redis.
import { createServer } from 'node:http';

import { createAdapter } from '@socket.io/redis-adapter';
import { createClient } from 'redis';
import { Server } from 'socket.io';

const faults = [];
process.on('uncaughtException', (error) => faults.push(`uncaught: ${error.stack}`));
process.on('unhandledRejection', (error) => faults.push(`unhandled: ${error?.stack ?? error}`));
process.on('disconnect', () => process.exit());

const [url] = process.argv.slice(2);
const publisher = createClient({ url });
const subscriber = publisher.duplicate();
for (const client of [publisher, subscriber]) client.on('error', (error) => faults.push(`redis: ${error.message}`));
await Promise.all([publisher.connect(), subscriber.connect()]);

const http = createServer();
const io = new Server(http, { adapter: createAdapter(publisher, subscriber) });
io.on('connection', (socket) => {
  socket.on('join', (room, ack) => {
    socket.join(room);
    ack();
  });
});

process.on('message', async ({ id, source, args }) => {
  try {
    const value = await (0, eval)(`(${source})`)(io, ...args);
    process.send({ id, value });
  } catch (error) {
    process.send({ id, error: error.message });
  }
});
http.listen(0, '127.0.0.1', () => process.send({ port: http.address().port }));
/** For `NodePeer.faults`. */
globalThis.faults = faults;
