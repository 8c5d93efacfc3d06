//! The five measurements.

use std::{
    io::{ErrorKind, Read, Write},
    net::{Ipv4Addr, TcpStream},
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use crate::{
    Failure,
    args::Args,
    connection::{Tally, frame},
    fleet::Fleet,
    process::{Meter, rss_kb},
    report::Report,
};

/// What a member says: 64 bytes.
const TEXT: &str = "The quick brown fox jumps over the lazy dog, then it sleeps 64 b";
const _: () = assert!(TEXT.len() == 64);

/// How long the rest of a run may take to arrive.
const DRAIN: Duration = Duration::from_secs(20);

/// Connections that do nothing but answer pings; what they cost the server in memory.
pub fn idle(args: &Args) -> Result<Report, Failure> {
    let (port, pid) = (args.port()?, args.pid()?);
    let connections: usize = args.number("connections", 10_000)?;
    let hold = args.seconds("hold", 5.0)?;

    let before_kb = pid.map_or(Ok(0), rss_kb)?;
    let started = Instant::now();
    let mut fleet = Fleet::open(connections, port, "-")?;
    fleet.watch()?;
    let connect_s = started.elapsed().as_secs_f64();
    eprintln!("ready: {connections} connections in {connect_s:.1} s");
    let ready_kb = pid.map_or(Ok(0), rss_kb)?;

    let meter = Meter::start(pid)?;
    let until = Instant::now() + hold;
    let mut pings = 0;
    while Instant::now() < until {
        fleet.turn(until, |_, tally, _| {
            pings += tally.pings;
            Ok(())
        })?;
    }
    let usage = meter.read()?;
    let after_kb = pid.map_or(Ok(0), rss_kb)?;

    let mut report = Report::default();
    report
        .add("connections", connections)
        .fraction("connect_seconds", connect_s)
        .add("rss_ready_kb", ready_kb)
        .memory(before_kb, after_kb, connections)
        .add("pings", pings)
        .fraction("hold_cpu_percent", 100.0 * usage.server_s.unwrap_or(0.0) / usage.wall_s);
    Ok(report)
}

/// Each connection keeps `window` messages on their way and sends one for each reply.
pub fn echo(args: &Args) -> Result<Report, Failure> {
    let (port, pid) = (args.port()?, args.pid()?);
    let connections: usize = args.number("connections", 64)?;
    let window: usize = args.number("window", 1)?;
    let measured = args.seconds("seconds", 5.0)?;
    let warmup = args.seconds("warmup", 1.0)?;

    let before_kb = pid.map_or(Ok(0), rss_kb)?;
    let mut fleet = Fleet::open(connections, port, args.text("reply", "response"))?;
    fleet.watch()?;
    let message = frame(&format!("42[\"{}\",\"{TEXT}\"]", args.text("event", "message")));
    // Cut to the number of replies that one read brought.
    let messages = message.repeat(window);
    for index in 0..connections {
        fleet.send(index, &messages)?;
    }

    let mut total = Tally::default();
    let mut run = |fleet: &mut Fleet, until: Instant| -> Result<Tally, Failure> {
        let before = total;
        while Instant::now() < until {
            fleet.turn(until, |_, tally, send| {
                total.replies += tally.replies;
                total.bytes += tally.bytes;
                let replies = usize::try_from(tally.replies)?;
                let frames = messages.get(..replies * message.len());
                send.extend_from_slice(frames.ok_or("more replies than messages")?);
                Ok(())
            })?;
        }
        Ok(Tally { replies: total.replies - before.replies, bytes: total.bytes - before.bytes, ..total })
    };
    run(&mut fleet, Instant::now() + warmup)?;
    let meter = Meter::start(pid)?;
    let measured = run(&mut fleet, Instant::now() + measured)?;
    let usage = meter.read()?;
    if measured.replies == 0 {
        return Err("no reply arrived".into());
    }

    let mut report = Report::default();
    report
        .add("connections", connections)
        .add("window", window)
        .throughput(measured.replies, measured.replies, &usage)
        .fraction("bytes_per_delivery", measured.bytes as f64 / measured.replies as f64)
        .memory(before_kb, pid.map_or(Ok(0), rss_kb)?, connections);
    Ok(report)
}

/// Rooms under saturation.
///
/// In each room `senders × window` messages are on their way all the time: when a sender sees a
/// delivery that is its turn (they take turns), it sends the next. So the flow is controlled by what
/// members really received, and the same for each server.
pub fn broadcast(args: &Args) -> Result<Report, Failure> {
    let (port, pid) = (args.port()?, args.pid()?);
    let measured = args.seconds("seconds", 5.0)?;
    let warmup = args.seconds("warmup", 1.0)?;
    let before_kb = pid.map_or(Ok(0), rss_kb)?;
    let mut rooms = Rooms::join(args, port, args.number("rooms", 3)?)?;
    let window: u64 = args.number("window", 16)?;
    rooms.start(window)?;

    rooms.run(Instant::now() + warmup)?;
    let (from, meter) = (rooms.total, Meter::start(pid)?);
    rooms.run(Instant::now() + measured)?;
    let (to, usage) = (rooms.total, meter.read()?);
    let after_kb = pid.map_or(Ok(0), rss_kb)?;
    rooms.sending = false;
    rooms.drain()?;

    let deliveries = to.replies - from.replies;
    let messages = deliveries / rooms.members as u64;
    let mut report = Report::default();
    report
        .add("rooms", rooms.rooms)
        .add("members", rooms.members)
        .add("senders_per_room", rooms.senders)
        .add("window", window)
        .throughput(messages, deliveries, &usage)
        .fraction("bytes_per_delivery", (to.bytes - from.bytes) as f64 / deliveries as f64)
        .add("sent_total", rooms.sent.iter().sum::<u64>())
        .add("all_members_got_all", true)
        .memory(before_kb, after_kb, rooms.rooms * rooms.members);
    Ok(report)
}

/// One message at a time into one room, with the clock times between which they were sent: for
/// counting a server's system calls from outside.
pub fn burst(args: &Args) -> Result<Report, Failure> {
    let messages: u64 = args.number("messages", 20)?;
    let mut rooms = Rooms::join(args, args.port()?, 1)?;
    let unix_s = || SystemTime::now().duration_since(UNIX_EPOCH).map(|since| since.as_secs_f64());
    let from = unix_s()?;
    for number in 0..messages {
        let packet = rooms.next_message(0);
        rooms.fleet.send(0, &packet)?;
        rooms.drain().map_err(|err| format!("message {number}: {err}"))?;
    }
    // What belongs to the last message may be written a little after its last delivery.
    thread::sleep(Duration::from_millis(100));
    let to = unix_s()?;

    let mut report = Report::default();
    report
        .add("members", rooms.members)
        .add("messages", messages)
        .add("deliveries", rooms.total.replies)
        .add("acks", rooms.total.acks)
        .add("pings", rooms.total.pings)
        .add("others", rooms.total.others)
        .fraction("bytes_per_delivery", rooms.total.bytes as f64 / rooms.total.replies as f64)
        .add("from", format_args!("{from:.6}"))
        .add("to", format_args!("{to:.6}"));
    Ok(report)
}

/// Members in rooms, and what each has received. Connection `i` is member `i / rooms` of room
/// `i % rooms`; the first `senders` members of a room send.
struct Rooms {
    fleet: Fleet,
    rooms: usize,
    members: usize,
    senders: usize,
    /// Whether a delivery makes its sender send the next.
    sending: bool,
    /// Messages sent into each room.
    sent: Vec<u64>,
    /// Deliveries to each connection.
    received: Vec<u64>,
    total: Tally,
}

impl Rooms {
    fn join(args: &Args, port: u16, rooms: usize) -> Result<Self, Failure> {
        let members: usize = args.number("members", 100)?;
        let senders: usize = args.number("senders-per-room", 1)?;
        if !(1..=members).contains(&senders) || rooms == 0 {
            return Err("there must be a room, and 1 to all members sending".into());
        }
        let mut fleet = Fleet::open(rooms * members, port, "chat_message")?;
        for (index, connection) in fleet.connections.iter_mut().enumerate() {
            let room = index % rooms;
            let join = format!("421[\"join_room\",{{\"meeting_id\":\"r{room}\"}}]");
            let ack = connection.request(&join, "431[")?;
            if !ack.contains("\"ok\":true") {
                return Err(format!("not let into the room: {ack}").into());
            }
        }
        // Order and completeness are watched by the first and last member of each room; everybody's
        // count is compared in the end.
        for (index, connection) in fleet.connections.iter_mut().enumerate() {
            if index < rooms || index >= rooms * (members - 1) {
                connection.check_seq();
            }
        }
        fleet.watch()?;
        fleet.settle(args.seconds("settle", 2.5)?)?;
        eprintln!("ready: {rooms} rooms of {members}");
        Ok(Self {
            rooms,
            members,
            senders,
            sending: false,
            sent: vec![0; rooms],
            received: vec![0; fleet.connections.len()],
            total: Tally::default(),
            fleet,
        })
    }

    /// Each sender's first `window` messages.
    fn start(&mut self, window: u64) -> Result<(), Failure> {
        self.sending = true;
        for index in 0..self.rooms * self.senders {
            let frames: Vec<u8> = (0..window).flat_map(|_| self.next_message(index % self.rooms)).collect();
            self.fleet.send(index, &frames)?;
        }
        Ok(())
    }

    fn next_message(&mut self, room: usize) -> Vec<u8> {
        self.sent[room] += 1;
        message(room, self.sent[room])
    }

    fn run(&mut self, until: Instant) -> Result<(), Failure> {
        while Instant::now() < until {
            self.turn(until)?;
        }
        Ok(())
    }

    fn turn(&mut self, until: Instant) -> Result<(), Failure> {
        let (rooms, senders, sending) = (self.rooms, self.senders as u64, self.sending);
        let Self { fleet, sent, received, total, .. } = self;
        fleet.turn(until, |index, tally, send| {
            let room = index % rooms;
            let member = (index / rooms) as u64;
            let before = received[index];
            received[index] += tally.replies;
            total.replies += tally.replies;
            total.acks += tally.acks;
            total.pings += tally.pings;
            total.others += tally.others;
            total.bytes += tally.bytes;
            if tally.refusals > 0 {
                return Err("a message was refused".into());
            }
            if sending && member < senders {
                for _ in (before..received[index]).filter(|delivery| delivery % senders == member) {
                    sent[room] += 1;
                    send.extend(message(room, sent[room]));
                }
            }
            Ok(())
        })
    }

    /// Waits until each member got all that was sent into its room, and the senders all acks.
    fn drain(&mut self) -> Result<(), Failure> {
        let give_up = Instant::now() + DRAIN;
        loop {
            let missing = self.received.iter().enumerate().filter(|&(i, &got)| got != self.sent[i % self.rooms]);
            let (missing, acks) = (missing.count(), self.sent.iter().sum::<u64>());
            if missing == 0 && self.total.acks == acks {
                return Ok(());
            }
            if Instant::now() > give_up {
                let got = self.total.acks;
                return Err(format!("{missing} members lack messages, {got} of {acks} acks came").into());
            }
            self.turn(give_up)?;
        }
    }
}

fn message(room: usize, ack: u64) -> Vec<u8> {
    frame(&format!("42{ack}[\"chat_message\",{{\"meeting_id\":\"r{room}\",\"text\":\"{TEXT}\"}}]"))
}

/// From `exec` to the first 200 on the health path; then the memory of a server nobody is connected to.
pub fn start(args: &Args) -> Result<Report, Failure> {
    let port = args.port()?;
    let times: usize = args.number("times", 9)?;
    let path = args.text("path", "/api/v1/chat/health");
    let rest = args.seconds("rest", 0.5)?;
    let (program, arguments) = args.command.split_first().ok_or("no command after --")?;

    let (mut millis, mut rss) = (Vec::new(), Vec::new());
    for _ in 0..times {
        let started = Instant::now();
        let mut server = Command::new(program)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .env("PORT", port.to_string())
            .spawn()
            .map_err(|err| format!("{program}: {err}"))?;
        let outcome = loop {
            if let Some(status) = server.try_wait()? {
                break Err(format!("the server ended: {status}").into());
            } else if started.elapsed() > DRAIN {
                break Err("the server does not answer".into());
            } else if healthy(port, path)? {
                millis.push(started.elapsed().as_secs_f64() * 1e3);
                thread::sleep(rest);
                break rss_kb(server.id());
            }
            thread::sleep(Duration::from_micros(200));
        };
        server.kill()?;
        server.wait()?;
        rss.push(outcome?);
    }
    millis.sort_by(f64::total_cmp);
    rss.sort_unstable();

    let mut report = Report::default();
    report
        .add("times", times)
        .fraction("start_ms", millis[times / 2])
        .fraction("start_ms_worst", millis[times - 1])
        .add("rss_kb", rss[times / 2]);
    Ok(report)
}

/// `false` if nobody listens yet or the answer is not 200.
fn healthy(port: u16, path: &str) -> Result<bool, Failure> {
    let mut stream = match TcpStream::connect((Ipv4Addr::LOCALHOST, port)) {
        Ok(stream) => stream,
        Err(err) if err.kind() == ErrorKind::ConnectionRefused => return Ok(false),
        Err(err) => return Err(err.into()),
    };
    stream.set_read_timeout(Some(Duration::from_secs(2)))?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n")?;
    let mut answer = [0; 64];
    let read = stream.read(&mut answer)?;
    Ok(answer[..read].starts_with(b"HTTP/1.1 200"))
}
