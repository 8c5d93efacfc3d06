// The chat's hot events on Node's socket.io: `message` -> `response`, `join_room`, `chat_message`
// with a seq per room. No store, no rights, no limits.
"use strict";
const http = require("node:http");
const { Server } = require("socket.io");

const server = http.createServer((request, response) => {
  const found = request.url === "/api/v1/chat/health";
  response.writeHead(found ? 200 : 404, { "Content-Type": "application/json" });
  response.end(found ? '{"status":"ok"}' : "{}");
});
const io = new Server(server, { serveClient: false });
const lastSeq = new Map();

io.on("connection", (socket) => {
  socket.on("message", (data) => socket.emit("response", { data }));
  socket.on("join_room", ({ meeting_id }, ack) => {
    socket.join(meeting_id);
    ack?.({ ok: true });
  });
  socket.on("chat_message", ({ meeting_id, text }, ack) => {
    const ts = Date.now();
    const seq = (lastSeq.get(meeting_id) ?? 0) + 1;
    lastSeq.set(meeting_id, seq);
    const id = String(ts).padStart(12, "0") + String(seq).padStart(14, "0");
    io.to(meeting_id).emit("chat_message", { id, seq, meeting_id, text, sender: socket.id, ts });
    ack?.({ ok: true, id, seq });
  });
});

server.listen(Number(process.env.PORT ?? 3000), "127.0.0.1", 1024);
