//! Promise: however many threads join, leave, broadcast and go, every member sees one unbroken sequence while it is in,
//! and nothing of a room is left when the last member is gone.

use std::{
    collections::{BTreeSet, HashMap},
    sync::{
        Arc, Barrier, Mutex,
        atomic::{AtomicUsize, Ordering},
        mpsc,
    },
    thread,
};

use chat_service::{
    outbox::{Frame, Outbox},
    rooms::{Joined, Limits, Member, RoomError, Rooms, Stay},
    types::RoomId,
};

const THREADS: usize = 6;
const MEMBERS_PER_THREAD: usize = 5;
const STEPS: usize = 4000;
const ROOMS: usize = 5;
const LIMITS: Limits = Limits { rooms: 100, members: 1000, rooms_per_member: 3, waiting_turns: 1_000_000 };

/// What the application keeps in a room: which life of the room it is, and the last number it gave.
struct Meeting {
    epoch: usize,
    seq: u64,
}

static EPOCHS: AtomicUsize = AtomicUsize::new(0);

fn meeting() -> Meeting {
    Meeting { epoch: EPOCHS.fetch_add(1, Ordering::Relaxed), seq: 0 }
}

fn member() -> Arc<Member> {
    Arc::new(Member::new(Arc::new(Outbox::new(1 << 30)), 0))
}

fn room_id(room: usize) -> RoomId {
    RoomId::new(&format!("room {room}"))
}

/// What a member is told: `joined`, `message` or `left`, the room, its life, and the number it had come to.
fn note(kind: &str, room: usize, meeting: &Meeting) -> Frame {
    Frame::text(&format!("{kind} {room} {} {}", meeting.epoch, meeting.seq))
}

/// Rooms whose offloaded turns run on a thread of their own, and a way to wait until all of them have.
struct Bench {
    rooms: Rooms<Meeting>,
    offloaded: Arc<AtomicUsize>,
}

impl Bench {
    fn new() -> Self {
        let offloaded = Arc::new(AtomicUsize::new(0));
        let (tell, told) = mpsc::channel::<Box<dyn FnOnce() + Send>>();
        let (begun, done) = (Arc::clone(&offloaded), Arc::clone(&offloaded));
        thread::spawn(move || {
            for turns in told {
                turns();
                done.fetch_sub(1, Ordering::AcqRel);
            }
        });
        let rooms = Rooms::new(LIMITS, move |turns| {
            begun.fetch_add(1, Ordering::AcqRel);
            tell.send(turns).unwrap();
        });
        Self { rooms, offloaded }
    }

    /// To be called when no other thread begins anything: a turn is run by who began it, or was offloaded.
    fn wait_until_quiet(&self) {
        while self.offloaded.load(Ordering::Acquire) > 0 {
            thread::yield_now();
        }
    }

    fn broadcast(&self, room: usize) {
        self.rooms.turn(&room_id(room), move |turn| {
            if let Ok(turn) = turn {
                turn.state.seq += 1;
                // Others meet a busy room, whose turns they leave to this thread.
                if turn.state.seq % 2 == 0 {
                    thread::yield_now();
                }
                turn.broadcast(&note("message", room, &turn.state));
            }
        });
    }

    /// How many members the room says it has.
    fn count(&self, room: usize) -> usize {
        let (tell, told) = mpsc::channel();
        self.rooms.turn(&room_id(room), move |turn| tell.send(turn.map_or(0, |turn| turn.len())).unwrap());
        told.recv().unwrap()
    }
}

#[test]
fn members_see_an_unbroken_sequence_and_nothing_is_left() {
    let bench = Bench::new();
    let barrier = Barrier::new(THREADS);
    // Who is in which room, as the thread that moves the member believes.
    let model = Mutex::new(vec![0; ROOMS]);
    let everybody = Mutex::new(Vec::new());
    let refused = AtomicUsize::new(0);
    let faults = Arc::new(Mutex::new(Vec::new()));
    thread::scope(|scope| {
        for number in 0..THREADS {
            let (bench, barrier, model, everybody, refused, faults) =
                (&bench, &barrier, &model, &everybody, &refused, &faults);
            scope.spawn(move || {
                let mut random = fastrand::Rng::with_seed(number as u64);
                let mut mine: Vec<(Arc<Member>, BTreeSet<usize>)> =
                    (0..MEMBERS_PER_THREAD).map(|_| (member(), BTreeSet::new())).collect();
                barrier.wait();
                for _ in 0..STEPS {
                    let room = random.usize(..ROOMS);
                    let (member, joined) = &mut mine[random.usize(..MEMBERS_PER_THREAD)];
                    match random.u8(..10) {
                        0..=3 => {
                            let is_allowed = joined.contains(&room) || joined.len() < LIMITS.rooms_per_member;
                            if is_allowed {
                                joined.insert(room);
                            } else {
                                refused.fetch_add(1, Ordering::Relaxed);
                            }
                            let told = Arc::clone(member);
                            let faults = Arc::clone(faults);
                            bench.rooms.join(&room_id(room), member, meeting, move |joined| {
                                match joined {
                                    Ok(joined) if is_allowed => {
                                        told.outbox().push(note("joined", room, &joined.room.state));
                                    }
                                    // It left, or went, before its turn came.
                                    Err(RoomError::Gone | RoomError::Left) if is_allowed => {}
                                    Err(RoomError::TooManyRooms) if !is_allowed => {}
                                    // A panic in a turn would be caught.
                                    outcome => faults.lock().unwrap().push((outcome.err(), is_allowed)),
                                }
                                Stay::In
                            });
                            assert_eq!(member.is_in(room_id(room).as_str()), joined.contains(&room));
                        }
                        4..=6 => {
                            let told = Arc::clone(member);
                            let left = bench.rooms.leave(&room_id(room), member, move |turn| {
                                told.outbox().push(note("left", room, &turn.state));
                            });
                            assert_eq!(left, joined.remove(&room));
                        }
                        7 => {
                            bench.rooms.remove(member, |_, _| {});
                            everybody.lock().unwrap().push(std::mem::replace(member, self::member()));
                            joined.clear();
                        }
                        _ => bench.broadcast(room),
                    }
                }
                for (member, joined) in mine {
                    let mut model = model.lock().unwrap();
                    joined.iter().for_each(|room| model[*room] += 1);
                    everybody.lock().unwrap().push(member);
                }
            });
        }
    });
    bench.wait_until_quiet();
    assert_eq!(*faults.lock().unwrap(), []);
    assert!(refused.into_inner() > 0, "the limit was never met");

    let model = model.into_inner().unwrap();
    assert_eq!((0..ROOMS).map(|room| bench.count(room)).collect::<Vec<_>>(), model);
    assert_eq!(bench.rooms.len(), model.iter().filter(|count| **count > 0).count());

    let everybody = everybody.into_inner().unwrap();
    let mut messages = 0;
    for member in &everybody {
        messages += check_sequence(&member.outbox().take_all().iter().map(text).collect::<Vec<_>>());
        bench.rooms.remove(member, |_, _| {});
    }
    assert!(messages > STEPS, "only {messages} messages were seen");
    assert!(bench.rooms.is_empty(), "{} rooms left", bench.rooms.len());
    for member in everybody {
        // A room that still held it would hold a reference.
        assert_eq!(Arc::strong_count(&member), 1);
        assert_eq!(Arc::strong_count(member.outbox()), 1);
    }
}

fn text(frame: &Frame) -> String {
    String::from_utf8(frame.payload().to_vec()).unwrap()
}

/// Checks what one member was told, and returns how many messages there were.
fn check_sequence(notes: &[String]) -> usize {
    let mut last: HashMap<&str, (&str, u64)> = HashMap::new();
    let mut messages = 0;
    for note in notes {
        let [kind, room, epoch, seq] = note.split(' ').collect::<Vec<_>>()[..] else { panic!("{note}") };
        let seq: u64 = seq.parse().unwrap();
        let known = last.get(room).copied();
        match kind {
            "joined" => {
                // Again while it was in: nothing may have been missed.
                assert!(known.is_none_or(|known| known == (epoch, seq)), "{note} after {known:?}");
                last.insert(room, (epoch, seq));
            }
            "message" => {
                messages += 1;
                let known = known.unwrap_or_else(|| panic!("{note} outside of the room"));
                assert_eq!((epoch, seq), (known.0, known.1 + 1), "after {known:?}");
                last.insert(room, (epoch, seq));
            }
            "left" => {
                assert_eq!(known, Some((epoch, seq)), "{note}");
                last.remove(room);
            }
            other => panic!("{other}"),
        }
    }
    messages
}

#[test]
fn a_broadcast_to_a_thousand_is_one_frame_and_one_push_each() {
    let bench = Bench::new();
    let members: Vec<_> = (0..LIMITS.members).map(|_| member()).collect();
    for member in &members {
        bench.rooms.join(&room_id(0), member, meeting, |_| Stay::In);
    }
    let one_too_many = member();
    bench.rooms.join(&room_id(0), &one_too_many, meeting, |_| Stay::In);
    assert_eq!(bench.count(0), LIMITS.members);
    for number in 1..=2 {
        bench.broadcast(0);
        let frames: Vec<_> = members.iter().map(|member| member.outbox().take_all()).collect();
        assert!(frames.iter().all(|frames| frames.len() == 1), "one push each");
        let shared = frames[0][0].websocket();
        assert!(text(&frames[0][0]).ends_with(&format!(" {number}")));
        assert!(frames.iter().all(|frames| std::ptr::eq(frames[0].websocket(), shared)), "encoded once");
    }
    members.iter().for_each(|member| bench.rooms.remove(member, |_, _| {}));
    assert!(bench.rooms.is_empty());
    assert!(one_too_many.outbox().is_empty());
}

/// A socket that is there and has room must get in: `Gone` would leave its client without an answer.
#[test]
fn a_join_that_meets_the_end_of_its_room_makes_a_new_one() {
    const ROUNDS: usize = 30_000;
    let bench = Bench::new();
    let barrier = Barrier::new(4);
    let refused = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                barrier.wait();
                for _ in 0..ROUNDS {
                    let guest = member();
                    let (tell, told) = mpsc::channel();
                    let tell = move |joined: Result<Joined<'_, Meeting>, RoomError>| {
                        tell.send(joined.map(|_| ())).unwrap();
                        Stay::In
                    };
                    bench.rooms.join(&room_id(0), &guest, meeting, tell);
                    if let Err(error) = told.recv().unwrap() {
                        refused.lock().unwrap().push(error);
                    }
                    bench.rooms.remove(&guest, |_, _| {});
                }
            });
        }
    });
    bench.wait_until_quiet();
    assert_eq!(refused.into_inner().unwrap(), [], "of {} joins", 4 * ROUNDS);
    assert!(bench.rooms.is_empty(), "{} rooms left", bench.rooms.len());
}

/// `/metrics` shows it, and a limit is decided by it.
#[test]
fn the_number_of_rooms_is_never_absurd() {
    let bench = Bench::new();
    let barrier = Barrier::new(4);
    let absurd = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                barrier.wait();
                for _ in 0..100_000 {
                    let guest = member();
                    bench.rooms.join(&room_id(0), &guest, meeting, |_| Stay::In);
                    bench.rooms.remove(&guest, |_, _| {});
                }
            });
        }
        scope.spawn(|| {
            barrier.wait();
            for _ in 0..3_000_000 {
                let count = bench.rooms.len();
                if count > 4 {
                    absurd.lock().unwrap().push(count);
                }
            }
        });
    });
    let absurd = absurd.into_inner().unwrap();
    assert_eq!(absurd.first(), None, "{} times", absurd.len());
}
