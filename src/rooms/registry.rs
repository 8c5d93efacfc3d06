//! All rooms, and the turns in which they are changed.

use std::{
    collections::VecDeque,
    mem,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

use crate::{
    rooms::{Member, Room, answer::answer},
    types::RoomId,
};

/// Every room that has a member. Cheap to clone.
///
/// Finding a room takes no lock. A room exists from its first join to its last leave.
pub struct Rooms<T> {
    shared: Arc<Shared<T>>,
}

/// What bounds the registry. A room's own memory is about 300 bytes and 16 for each member.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Rooms in all.
    pub rooms: usize,
    /// Members of one room.
    pub members: usize,
    /// Rooms of one member.
    pub rooms_per_member: usize,
    /// Turns that wait for one room. Only reached if one room gets events faster than they can be fanned out.
    pub waiting_turns: usize,
}

/// Why a join or a turn was refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RoomError {
    /// The socket is gone; nobody waits for an answer.
    Gone,
    /// The member has left the room before its turn to join came.
    Left,
    /// [`Limits::rooms_per_member`] reached.
    TooManyRooms,
    /// [`Limits::members`] reached.
    RoomFull,
    /// [`Limits::rooms`] reached.
    RegistryFull,
    /// [`Limits::waiting_turns`] reached.
    Busy,
}

/// A member that has just been put into a room.
pub struct Joined<'a, T> {
    /// The room, with the member in it.
    pub room: &'a mut Room<T>,
    /// Whether the member was not in before.
    pub is_new: bool,
}

/// Whether a member that has just been put into a room stays there.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Stay {
    /// It does.
    In,
    /// It is taken out again, unless it was in before.
    Out,
}

struct Shared<T> {
    rooms: papaya::HashMap<RoomId, Arc<Cell<T>>>,
    /// How many rooms there are, counted when one is made and when it is retired.
    count: AtomicUsize,
    limits: Limits,
    offload: Offload,
}

/// Runs a closure later, on another task.
type Offload = Box<dyn Fn(Box<dyn FnOnce() + Send>) + Send + Sync>;
type Turn<T> = Box<dyn FnOnce(Result<&mut Room<T>, RoomError>) + Send>;

struct Cell<T> {
    queue: Mutex<Queue<T>>,
    /// Locked by whoever set `busy`, and by nobody else: never waited for.
    room: Mutex<Room<T>>,
}

struct Queue<T> {
    waiting: VecDeque<Turn<T>>,
    /// Somebody runs turns, and will run what is put into `waiting`.
    busy: bool,
    /// The room was empty and is out of the registry: look it up again.
    retired: bool,
}

/// After this many turns for others, the rest is offloaded: whoever ran them has a socket of its own to serve.
const TURNS_IN_A_ROW: usize = 64;

impl<T: Send + 'static> Rooms<T> {
    /// An empty registry. `offload` is to run a closure on a task of its own, soon.
    pub fn new(limits: Limits, offload: impl Fn(Box<dyn FnOnce() + Send>) + Send + Sync + 'static) -> Self {
        let shared =
            Shared { rooms: papaya::HashMap::new(), count: AtomicUsize::new(0), limits, offload: Box::new(offload) };
        Self { shared: Arc::new(shared) }
    }

    /// Puts a member into a room, making the room if need be, and calls `then` in the same turn: what it queues to
    /// the member comes before every later broadcast. Joining again only calls `then`.
    ///
    /// `then` may still turn away a member that was not in before.
    pub fn join(
        &self,
        id: &RoomId,
        member: &Arc<Member>,
        make: impl Fn() -> T,
        then: impl FnOnce(Result<Joined<'_, T>, RoomError>) -> Stay + Send + 'static,
    ) {
        let is_new = match self.note_join(id, member) {
            Ok(is_new) => is_new,
            Err(error) => {
                then(Err(error));
                return;
            }
        };
        let limit = self.shared.limits.members;
        // All members of a full room may come back at once.
        let waiting_turns = self.shared.limits.waiting_turns + limit;
        let (rooms, joining, room_id) = (self.clone(), Arc::clone(member), id.clone());
        self.run(id, Some(make), waiting_turns, move |room| {
            let entered = room.and_then(|room| {
                // The socket may have gone, or left, since it asked.
                if !joining.is_in(room_id.as_str()) {
                    return Err(if joining.joined().gone { RoomError::Gone } else { RoomError::Left });
                }
                let is_new = !room.has(&joining);
                if is_new {
                    if room.len() >= limit {
                        return Err(RoomError::RoomFull);
                    }
                    room.add(&joining);
                }
                Ok((room, is_new))
            });
            let forget = || joining.joined().rooms.retain(|joined| *joined != room_id);
            match entered {
                Ok((room, was_added)) => {
                    let stay = then(Ok(Joined { room, is_new: was_added }));
                    if stay == Stay::Out && was_added {
                        forget();
                        room.remove(&joining);
                    }
                }
                Err(error) => {
                    // A member that asked again, and was refused, stays in.
                    if is_new {
                        forget();
                    }
                    if error == RoomError::Busy {
                        // It may still be in from before: a leave that waited has seen it ask again, and let it be.
                        rooms.take_out(&room_id, &joining, |_| {});
                    }
                    then(Err(error));
                }
            }
        });
    }

    /// Takes a member out of a room, if it is in, and calls `then` in the same turn. False if it was not in, and nothing
    /// happens.
    pub fn leave(&self, id: &RoomId, member: &Arc<Member>, then: impl FnOnce(&mut Room<T>) + Send + 'static) -> bool {
        {
            let mut joined = member.joined();
            let Some(index) = joined.rooms.iter().position(|joined| joined == id) else {
                return false;
            };
            joined.rooms.swap_remove(index);
        }
        self.take_out(id, member, then);
        true
    }

    /// Takes a member out of all its rooms, for good: its later joins do nothing. `then` is called in the turn of each
    /// room that it was in.
    pub fn remove(&self, member: &Arc<Member>, then: impl Fn(&RoomId, &mut Room<T>) + Clone + Send + 'static) {
        let rooms = {
            let mut joined = member.joined();
            joined.gone = true;
            mem::take(&mut joined.rooms)
        };
        for id in rooms {
            let (then, room_id) = (then.clone(), id.clone());
            self.take_out(&id, member, move |room| then(&room_id, room));
        }
    }

    /// Runs a turn in a room that exists.
    pub fn turn(&self, id: &RoomId, turn: impl FnOnce(Result<&mut Room<T>, RoomError>) + Send + 'static) {
        self.run(id, None::<fn() -> T>, self.shared.limits.waiting_turns, turn);
    }

    /// Runs a turn that is never refused for its room being busy: for what has happened already, and must be told. The
    /// caller sees to it that there are not too many, with [`is_busy`](Self::is_busy).
    pub fn deliver(&self, id: &RoomId, turn: impl FnOnce(Result<&mut Room<T>, RoomError>) + Send + 'static) {
        self.run(id, None::<fn() -> T>, usize::MAX, turn);
    }

    /// Runs a turn, and waits for what it returns. `None` if there is no such room, or it is too busy, or the turn panics.
    pub fn ask<R: Send + 'static>(
        &self,
        id: &RoomId,
        turn: impl FnOnce(&mut Room<T>) -> R + Send + 'static,
    ) -> impl Future<Output = Option<R>> + Send + 'static {
        let (tell, told) = answer();
        self.turn(id, move |room| {
            if let Ok(room) = room {
                tell.send(turn(room));
            }
        });
        told
    }

    /// Whether more turns wait for a room than it takes.
    pub fn is_busy(&self, id: &RoomId) -> bool {
        self.find(id).is_some_and(|cell| cell.queue().waiting.len() >= self.shared.limits.waiting_turns)
    }

    /// The rooms there are.
    pub fn ids(&self) -> Vec<RoomId> {
        self.shared.rooms.pin().keys().cloned().collect()
    }

    /// Whether there is such a room.
    pub fn has(&self, id: &RoomId) -> bool {
        self.find(id).is_some()
    }

    /// How many rooms there are.
    pub fn len(&self) -> usize {
        // ORDERING: Relaxed. A gauge, and a limit that may be passed by as many rooms as there are threads.
        self.shared.count.load(Ordering::Relaxed)
    }

    /// Whether there are no rooms.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Notes what the member asks for. True if it had not asked for that before.
    fn note_join(&self, id: &RoomId, member: &Arc<Member>) -> Result<bool, RoomError> {
        let mut joined = member.joined();
        if joined.gone {
            return Err(RoomError::Gone);
        }
        let is_new = !joined.rooms.contains(id);
        if is_new {
            if joined.rooms.len() >= self.shared.limits.rooms_per_member {
                return Err(RoomError::TooManyRooms);
            }
            joined.rooms.push(id.clone());
        }
        Ok(is_new)
    }

    fn take_out(&self, id: &RoomId, member: &Arc<Member>, then: impl FnOnce(&mut Room<T>) + Send + 'static) {
        let leaving = Arc::clone(member);
        let room_id = id.clone();
        // Never refused: the member would stay for ever. There are no more of these than joins before them.
        self.run(id, None::<fn() -> T>, usize::MAX, move |room| {
            // It may have joined again in the meantime: the last word stands.
            if let Ok(room) = room
                && !leaving.is_in(room_id.as_str())
                && room.remove(&leaving)
            {
                then(room);
            }
        });
    }

    /// Finds or makes the room, and runs the turn or leaves it to whoever is busy with the room.
    fn run(
        &self,
        id: &RoomId,
        make: Option<impl Fn() -> T>,
        waiting_turns: usize,
        turn: impl FnOnce(Result<&mut Room<T>, RoomError>) + Send + 'static,
    ) {
        let mut turn = Some(turn);
        loop {
            let cell = match self.find(id) {
                Some(cell) => cell,
                None => match make.as_ref().map(|make| self.make(id, make)) {
                    Some(Ok(cell)) => cell,
                    refused => {
                        let error = refused.and_then(Result::err).unwrap_or(RoomError::Gone);
                        if let Some(turn) = turn.take() {
                            turn(Err(error));
                        }
                        return;
                    }
                },
            };
            match cell.begin(&mut turn, waiting_turns) {
                Begin::Now => {
                    let result = turn.take().map(|turn| cell.run_one(turn));
                    self.drain(id, &cell);
                    if let Some(Err(panic)) = result {
                        resume_unwind(panic);
                    }
                    return;
                }
                Begin::Left => return,
                Begin::Busy => {
                    if let Some(turn) = turn.take() {
                        turn(Err(RoomError::Busy));
                    }
                    return;
                }
                // Its retirer takes it out of the map, or we do: whoever comes first.
                Begin::Retired => self.forget(id, &cell),
            }
        }
    }

    fn find(&self, id: &RoomId) -> Option<Arc<Cell<T>>> {
        self.shared.rooms.pin().get(id).cloned()
    }

    fn make(&self, id: &RoomId, make: impl Fn() -> T) -> Result<Arc<Cell<T>>, RoomError> {
        // Counted before it can be found: whoever finds it may retire it, and count it off, before we go on.
        if self.shared.count.fetch_add(1, Ordering::Relaxed) >= self.shared.limits.rooms {
            self.shared.count.fetch_sub(1, Ordering::Relaxed);
            // The last place may have gone to this very room.
            return self.find(id).ok_or(RoomError::RegistryFull);
        }
        let made = Arc::new(Cell {
            queue: Mutex::new(Queue { waiting: VecDeque::new(), busy: false, retired: false }),
            room: Mutex::new(Room::new(make())),
        });
        let rooms = self.shared.rooms.pin();
        let cell = Arc::clone(rooms.get_or_insert(id.clone(), Arc::clone(&made)));
        if !Arc::ptr_eq(&cell, &made) {
            self.shared.count.fetch_sub(1, Ordering::Relaxed);
        }
        Ok(cell)
    }

    fn forget(&self, id: &RoomId, cell: &Arc<Cell<T>>) {
        let rooms = self.shared.rooms.pin();
        if let Ok(Some(_)) = rooms.remove_if(id, |_, present| Arc::ptr_eq(present, cell)) {
            self.shared.count.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// Runs what waits for the room until nothing does, then retires the room if it is empty.
    fn drain(&self, id: &RoomId, cell: &Arc<Cell<T>>) {
        for _ in 0..TURNS_IN_A_ROW {
            match cell.next() {
                Next::Turn(turn) => {
                    // A panic was reported by the panic hook. It belongs to the socket that left the turn here, not to us.
                    let _ = cell.run_one(turn);
                }
                Next::Idle => return,
                Next::Retired => return self.forget(id, cell),
            }
        }
        let (rooms, id, cell) = (Self { shared: Arc::clone(&self.shared) }, id.clone(), Arc::clone(cell));
        (self.shared.offload)(Box::new(move || rooms.drain(&id, &cell)));
    }
}

impl<T> Clone for Rooms<T> {
    fn clone(&self) -> Self {
        Self { shared: Arc::clone(&self.shared) }
    }
}

enum Begin {
    /// The room is ours: run the turn, then drain.
    Now,
    /// The turn waits; whoever is busy runs it.
    Left,
    /// Too many turns wait.
    Busy,
    Retired,
}

enum Next<T> {
    Turn(Turn<T>),
    Idle,
    Retired,
}

impl<T: Send + 'static> Cell<T> {
    /// Takes the room over, or leaves the turn with whoever has it (and takes it out of `turn`).
    fn begin(
        &self,
        turn: &mut Option<impl FnOnce(Result<&mut Room<T>, RoomError>) + Send + 'static>,
        limit: usize,
    ) -> Begin {
        let mut queue = self.queue();
        if queue.retired {
            Begin::Retired
        } else if !queue.busy {
            queue.busy = true;
            Begin::Now
        } else if queue.waiting.len() >= limit {
            Begin::Busy
        } else {
            // Boxed only when it has to wait.
            if let Some(turn) = turn.take() {
                queue.waiting.push_back(Box::new(turn));
            }
            Begin::Left
        }
    }

    /// For whoever is busy with the room: the next turn, or the end of being busy.
    fn next(&self) -> Next<T> {
        let mut queue = self.queue();
        if let Some(turn) = queue.waiting.pop_front() {
            return Next::Turn(turn);
        }
        queue.busy = false;
        queue.waiting = VecDeque::new();
        queue.retired = self.room().is_empty();
        if queue.retired { Next::Retired } else { Next::Idle }
    }

    fn run_one(&self, turn: impl FnOnce(Result<&mut Room<T>, RoomError>)) -> std::thread::Result<()> {
        // Caught, so that the room does not stay busy for ever.
        catch_unwind(AssertUnwindSafe(|| turn(Ok(&mut *self.room()))))
    }

    fn queue(&self) -> MutexGuard<'_, Queue<T>> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn room(&self) -> MutexGuard<'_, Room<T>> {
        self.room.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::{
        sync::{Barrier, mpsc},
        thread,
    };

    use super::*;
    use crate::outbox::{Frame, Outbox};

    const LIMITS: Limits = Limits { rooms: 4, members: 3, rooms_per_member: 2, waiting_turns: 8 };

    fn registry(limits: Limits) -> Rooms<u64> {
        Rooms::new(limits, |turns| turns())
    }

    fn member() -> Arc<Member> {
        Arc::new(Member::new(Arc::new(Outbox::new(1 << 20)), 0))
    }

    fn received(member: &Member) -> Vec<String> {
        let frames = member.outbox().take_all();
        frames.iter().map(|frame| String::from_utf8_lossy(frame.payload()).into_owned()).collect()
    }

    /// Joins and returns what came of it. The room is idle, so its turn has run when `join` returns.
    fn join(rooms: &Rooms<u64>, id: &str, member: &Arc<Member>) -> Result<usize, RoomError> {
        let (tell, told) = mpsc::channel();
        rooms.join(
            &RoomId::new(id),
            member,
            || 0,
            move |joined| {
                tell.send(joined.map(|joined| joined.room.len())).unwrap();
                Stay::In
            },
        );
        told.recv().unwrap()
    }

    fn broadcast(rooms: &Rooms<u64>, id: &str, text: &str) {
        let frame = Frame::text(text);
        rooms.turn(&RoomId::new(id), move |room| {
            if let Ok(room) = room {
                room.broadcast(&frame);
            }
        });
    }

    #[test]
    fn members_receive_and_others_do_not() {
        let rooms = registry(LIMITS);
        let (a, b, c) = (member(), member(), member());
        assert_eq!(join(&rooms, "x", &a), Ok(1));
        assert_eq!(join(&rooms, "x", &b), Ok(2));
        assert_eq!(join(&rooms, "y", &c), Ok(1));
        broadcast(&rooms, "x", "hello");
        assert_eq!((received(&a), received(&b), received(&c).len()), (vec!["hello".into()], vec!["hello".into()], 0));
        assert!(a.is_in("x") && !a.is_in("y"));
    }

    #[test]
    fn joining_twice_is_being_in_once() {
        let rooms = registry(LIMITS);
        let a = member();
        assert_eq!(join(&rooms, "x", &a), Ok(1));
        assert_eq!(join(&rooms, "x", &a), Ok(1));
        broadcast(&rooms, "x", "once");
        assert_eq!(received(&a), ["once"]);
        assert!(rooms.leave(&RoomId::new("x"), &a, |_| {}));
        assert!(!rooms.leave(&RoomId::new("x"), &a, |_| {}));
        assert!(rooms.is_empty());
    }

    #[test]
    fn every_limit_holds_at_it_and_one_past_it() {
        let rooms = registry(LIMITS);
        let members: Vec<_> = (0..5).map(|_| member()).collect();
        for (index, member) in members[..3].iter().enumerate() {
            assert_eq!(join(&rooms, "full", member), Ok(index + 1));
        }
        assert_eq!(join(&rooms, "full", &members[3]), Err(RoomError::RoomFull));
        assert!(!members[3].is_in("full"));
        assert_eq!(join(&rooms, "2", &members[0]), Ok(1));
        assert_eq!(join(&rooms, "3", &members[0]), Err(RoomError::TooManyRooms));
        assert_eq!(join(&rooms, "3", &members[1]), Ok(1));
        assert_eq!(join(&rooms, "4", &members[3]), Ok(1));
        assert_eq!(join(&rooms, "5", &members[3]), Err(RoomError::RegistryFull));
        assert!(!members[3].is_in("5"));
        assert_eq!(rooms.len(), 4);
    }

    #[test]
    fn a_join_after_the_removal_does_nothing() {
        let rooms = registry(LIMITS);
        let a = member();
        assert_eq!(join(&rooms, "x", &a), Ok(1));
        rooms.remove(&a, |_, _| {});
        assert_eq!(join(&rooms, "x", &a), Err(RoomError::Gone));
        assert!(rooms.is_empty());
        assert!(rooms.shared.rooms.pin().is_empty());
    }

    /// A member joins the room `x` while the room is busy, and does something else before its turn comes.
    fn join_and_then(
        rooms: &Rooms<u64>,
        member: &Arc<Member>,
        meanwhile: impl FnOnce(&Rooms<u64>, &Arc<Member>) + Send + 'static,
    ) -> Result<(), RoomError> {
        let (inner, member) = (rooms.clone(), Arc::clone(member));
        let (tell, told) = mpsc::channel();
        rooms.turn(&RoomId::new("x"), move |_| {
            let outcome = move |joined: Result<Joined<'_, u64>, RoomError>| {
                tell.send(joined.map(|_| ())).unwrap();
                Stay::In
            };
            inner.join(&RoomId::new("x"), &member, || 0, outcome);
            meanwhile(&inner, &member);
        });
        told.recv().unwrap()
    }

    #[test]
    fn a_removal_between_the_join_and_its_turn_wins() {
        let rooms = registry(LIMITS);
        let (a, b) = (member(), member());
        assert_eq!(join(&rooms, "x", &b), Ok(1));
        assert_eq!(join_and_then(&rooms, &a, |rooms, a| rooms.remove(a, |_, _| {})), Err(RoomError::Gone));
        broadcast(&rooms, "x", "only b");
        assert_eq!(received(&a).len(), 0);
        assert_eq!(received(&b), ["only b"]);
    }

    #[test]
    fn a_leave_between_the_join_and_its_turn_is_told_to_the_join() {
        let rooms = registry(LIMITS);
        let (a, b) = (member(), member());
        assert_eq!(join(&rooms, "x", &b), Ok(1));
        let leaves = |rooms: &Rooms<u64>, a: &Arc<Member>| assert!(rooms.leave(&RoomId::new("x"), a, |_| {}));
        assert_eq!(join_and_then(&rooms, &a, leaves), Err(RoomError::Left));
        assert_eq!(join(&rooms, "x", &a), Ok(2));
    }

    #[test]
    fn waiting_turns_are_bounded_and_run_in_order() {
        let rooms = registry(LIMITS);
        let a = member();
        join(&rooms, "x", &a).unwrap();
        let inner = rooms.clone();
        let (tell, told) = mpsc::channel();
        rooms.turn(&RoomId::new("x"), move |_| {
            for number in 0..=LIMITS.waiting_turns {
                let tell = tell.clone();
                inner.turn(&RoomId::new("x"), move |room| tell.send((number, room.map(|_| ()))).unwrap());
            }
        });
        let outcomes: Vec<_> = told.try_iter().collect();
        // The refused one is told at once; the others come after the turn that left them.
        assert_eq!(outcomes[0], (LIMITS.waiting_turns, Err(RoomError::Busy)));
        let expected: Vec<_> = (0..LIMITS.waiting_turns).map(|number| (number, Ok(()))).collect();
        assert_eq!(outcomes[1..], expected);
    }

    #[test]
    fn a_panic_in_a_turn_leaves_the_room_usable() {
        let rooms = registry(LIMITS);
        let a = member();
        join(&rooms, "x", &a).unwrap();
        let inner = rooms.clone();
        let outcome = catch_unwind(AssertUnwindSafe(|| rooms.turn(&RoomId::new("x"), |_| panic!("on purpose"))));
        assert!(outcome.is_err(), "the one whose turn it was notices");
        let left = catch_unwind(AssertUnwindSafe(|| {
            rooms.turn(&RoomId::new("x"), move |_| inner.turn(&RoomId::new("x"), |_| panic!("on purpose")));
        }));
        assert!(left.is_ok(), "the one who ran it for another does not");
        broadcast(&rooms, "x", "still here");
        assert_eq!(received(&a), ["still here"]);
    }

    #[test]
    fn many_turns_are_offloaded() {
        let (tell, told) = mpsc::channel();
        let rooms: Rooms<u64> =
            Rooms::new(Limits { waiting_turns: 1000, ..LIMITS }, move |turns| tell.send(turns).unwrap());
        let a = member();
        join(&rooms, "x", &a).unwrap();
        let inner = rooms.clone();
        rooms.turn(&RoomId::new("x"), move |_| {
            for number in 0..TURNS_IN_A_ROW + 1 {
                broadcast(&inner, "x", &number.to_string());
            }
        });
        assert_eq!(received(&a).len(), TURNS_IN_A_ROW);
        told.recv().unwrap()();
        assert_eq!(received(&a), [TURNS_IN_A_ROW.to_string()]);
        rooms.remove(&a, |_, _| {});
        assert!(rooms.is_empty());
    }

    /// Two threads that send into one room at once must not swap what members see, and nothing may stay behind
    /// when members come and go meanwhile.
    #[test]
    fn all_members_see_one_order_under_contention() {
        const THREADS: usize = 4;
        const ROUNDS: usize = 500;
        let rooms = registry(Limits { rooms: 10, members: 100, rooms_per_member: 10, waiting_turns: 100_000 });
        let listeners = [member(), member()];
        for listener in &listeners {
            join(&rooms, "x", listener).unwrap();
        }
        let barrier = Barrier::new(THREADS);
        thread::scope(|scope| {
            for _ in 0..THREADS {
                scope.spawn(|| {
                    barrier.wait();
                    for round in 0..ROUNDS {
                        rooms.turn(&RoomId::new("x"), |room| {
                            let room = room.unwrap();
                            room.state += 1;
                            room.broadcast(&Frame::text(&room.state.to_string()));
                        });
                        let guest = member();
                        let id = RoomId::new(if round % 2 == 0 { "x" } else { "y" });
                        rooms.join(&id, &guest, || 0, |_| Stay::In);
                        rooms.remove(&guest, |_, _| {});
                    }
                });
            }
        });
        // Turns that were offloaded inline have all run; the last drainer has left.
        let expected: Vec<_> = (1..=THREADS * ROUNDS).map(|seq| seq.to_string()).collect();
        for listener in &listeners {
            assert_eq!(received(listener), expected);
            rooms.remove(listener, |_, _| {});
        }
        assert!(rooms.is_empty(), "{} rooms left", rooms.len());
        assert!(rooms.shared.rooms.pin().is_empty());
    }
}
