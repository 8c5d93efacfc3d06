//! Who is in which room, one order of events per room, and the fan-out to its members.
//!
//! A [`Room`] is changed and read in *turns*: a turn is a closure that has the room to itself. A turn runs at
//! once if the room is idle; otherwise whoever is busy with the room runs it next. Nobody waits, turns of one room
//! never overlap, and all members see their effects in the same order. So "take the next seq and queue to
//! everybody" or "join and tell the top" is one step without a lock that readers could feel, and other rooms go on.
//!
//! Left to others: what an event means and how it is encoded (`chat`), writing to clients (`outbox`, `net`).
//! Start at [`Rooms`].

mod answer;
mod registry;
mod room;

pub(crate) use answer::{Sender, answer};
pub use registry::{Joined, Limits, RoomError, Rooms, Stay};
pub use room::{Member, Room};
