//! Bringing logged events to the members of a meeting, each once and in their order, and fetching from the log what did
//! not come by itself.

use std::sync::Arc;

use crate::{
    chat::{
        Chat,
        job::Job,
        meeting::{self, Delivered, Meeting, Reload},
    },
    rooms::Room,
    store::{From, Kind, Known, LogEvent, Page, Position, Range, Standing},
    types::RoomId,
};

/// Where an event was logged.
#[derive(Clone, Copy)]
pub(super) enum Origin<'a> {
    /// By this process, for that user if it is somebody's message.
    Here(Option<&'a Arc<str>>),
    /// By another one.
    Elsewhere,
}

/// How long an event may be overtaken by others before the log is asked for it.
const REPAIR_PAUSE_MS: u64 = 100;
/// When the log is asked again after it could not answer.
const REPAIR_AGAIN_MS: u64 = 1000;
/// Events that are fetched at a time, and how often.
const REPAIR_PAGE: usize = 200;
const REPAIR_PAGES: usize = 10;
/// Meetings whose logs are checked at a time.
const CHECK_BATCH: usize = 256;

impl Chat {
    /// Brings a logged event to everybody in the meeting.
    pub(super) fn deliver(self: &Arc<Self>, id: &RoomId, event: LogEvent, origin: Origin<'_>) {
        if let Some(cluster) = &self.cluster {
            cluster.note(id, &event.epoch, event.seq, self.now());
        }
        let (chat, room_id) = (Arc::clone(self), id.clone());
        let is_message = event.kind == Kind::ChatMessage;
        let (is_ours, author) = match origin {
            Origin::Here(author) => (true, author.filter(|_| is_message).cloned()),
            Origin::Elsewhere => (false, None),
        };
        self.meetings.deliver(id, move |room| {
            let Ok(room) = room else {
                // Nobody is there; readers elsewhere are told nevertheless.
                if is_message && is_ours {
                    chat.put_off_readers(&room_id);
                }
                return;
            };
            if let Some(author) = &author {
                meeting::forget_typing(room, author);
            }
            match meeting::deliver(room, event, chat.now()) {
                // Ours may have come by the channel first.
                Delivered::Before if !is_ours => return,
                Delivered::Before => {}
                Delivered::Now => {}
                Delivered::Not { is_other_life } => {
                    let pause = if is_other_life { 0 } else { REPAIR_PAUSE_MS };
                    chat.repair_later(room, &room_id, pause);
                }
            }
            if is_message && is_ours && room.state.note_unread() {
                chat.put_off_readers(&room_id);
            }
        });
    }

    /// Fetches what is missing, in a moment: most of it comes by itself.
    fn repair_later(self: &Arc<Self>, room: &mut Room<Meeting>, id: &RoomId, pause_ms: u64) {
        if !room.state.note_repair() {
            return;
        }
        if pause_ms > 0 {
            self.schedule.add(self.now() + pause_ms, Job::Repair(id.clone()));
            return;
        }
        let (chat, id) = (Arc::clone(self), id.clone());
        self.run(async move { chat.repair_if_needed(&id, true).await });
    }

    /// The time has come to fetch what is missing, if something still is.
    pub(super) async fn repair_if_needed(self: &Arc<Self>, id: &RoomId, is_certain: bool) {
        let has_hole = self.ask_room(id, |room| {
            room.state.repaired();
            room.state.has_hole()
        });
        if has_hole.await.is_some_and(|has_hole| has_hole || is_certain) {
            self.repair(id).await;
        }
    }

    /// Delivers what the log has and the room has not, or tells members that they have to load it.
    pub(super) async fn repair(self: &Arc<Self>, id: &RoomId) {
        self.metrics.repaired();
        for _ in 0..REPAIR_PAGES {
            let Some(Some(asked)) = self.ask_room(id, |room| room.state.position().cloned()).await else { return };
            let from = From::After(asked.seq);
            let range = Range { meeting: id.clone(), from, epoch: None, limit: REPAIR_PAGE, kinds: Vec::new() };
            let Ok(page) = self.store.range(range, self.now()).await else { return self.repair_again(id) };
            let (room_id, now, has_more) = (id.clone(), self.now(), page.has_more);
            let (epoch, top, chat) = (Arc::clone(&page.epoch), page.top_seq, Arc::clone(self));
            let filled = self.ask_room(id, move |room| {
                if fill(room, &room_id, &asked, page, now) == Filled::ByReload {
                    chat.metrics.resynced();
                }
                (room.state.position().cloned(), room.state.has_hole().then(|| room.state.last_known()))
            });
            let filled = filled.await;
            if let (Some(cluster), Some((Some(position), _))) = (&self.cluster, &filled) {
                cluster.note(id, &position.epoch, position.seq, now);
                if position.epoch == epoch && position.seq > top {
                    // The log ends before what members have: it has gone back.
                    return self.repair_loss(id, Some(position.clone())).await;
                }
            }
            match filled.map(|(_, known)| known) {
                // Something has come that the log does not have.
                Some(Some(known)) if !has_more => return self.repair_loss(id, known).await,
                Some(_) if has_more => {}
                _ => return,
            }
        }
        self.repair_again(id);
    }

    /// An event has come that the log has not: it may have gone back.
    async fn repair_loss(self: &Arc<Self>, id: &RoomId, known: Option<Position>) {
        let asked = vec![Known { meeting: id.clone(), known: known.clone() }];
        let Ok(standing) = self.store.check(asked, self.now()).await else { return self.repair_again(id) };
        match standing.into_iter().next() {
            Some(standing) if known.is_none_or(|known| known.epoch != standing.top.epoch) => {
                self.reload(id, standing);
            }
            _ => self.repair_again(id),
        }
    }

    fn repair_again(self: &Arc<Self>, id: &RoomId) {
        let (chat, room_id) = (Arc::clone(self), id.clone());
        self.in_room(id, move |room| {
            if room.state.note_repair() {
                chat.schedule.add(chat.now() + REPAIR_AGAIN_MS, Job::Catch(room_id));
            }
        });
    }

    /// The log has another life than the room knows of.
    pub(super) fn reload(self: &Arc<Self>, id: &RoomId, standing: Standing) {
        let (chat, room_id) = (Arc::clone(self), id.clone());
        self.in_room(id, move |room| {
            if room.state.position().is_some_and(|position| position.epoch != standing.top.epoch) {
                chat.metrics.resynced();
                meeting::resync(room, &room_id, Reload::EpochChanged, &standing);
            }
        });
    }

    /// Compares the ends of logs that are known here with the logs, and has the rooms repaired that stand elsewhere. False
    /// if the logs could not be asked.
    pub(super) async fn check_meetings(self: &Arc<Self>) -> bool {
        let Some(cluster) = &self.cluster else { return true };
        for known in cluster.all_known().chunks(CHECK_BATCH) {
            let ask = |(id, known): &(RoomId, Position)| Known { meeting: id.clone(), known: Some(known.clone()) };
            let Ok(standings) = self.store.check(known.iter().map(ask).collect(), self.now()).await else {
                return false;
            };
            for ((id, _), standing) in known.iter().zip(standings) {
                let position = self.ask_room(id, |room| room.state.position().cloned()).await;
                if position.flatten().is_some_and(|position| position != standing.top) {
                    self.schedule.add(self.now(), Job::Catch(id.clone()));
                }
            }
        }
        true
    }

    /// Asks a room, however busy it is. `None` if there is no such room.
    pub(super) fn ask_room<R: Send + 'static>(
        &self,
        id: &RoomId,
        ask: impl FnOnce(&mut Room<Meeting>) -> R + Send + 'static,
    ) -> impl Future<Output = Option<R>> + Send + 'static {
        let (tell, told) = crate::rooms::answer();
        self.in_room(id, move |room| tell.send(ask(room)));
        told
    }
}

/// How a room got to where the log stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Filled {
    ByEvents,
    /// Members have to load it.
    ByReload,
    /// It has moved since it was asked where it stands.
    Not,
}

/// Delivers what the log has said, if that is of use where the room stands by now.
fn fill(room: &mut Room<Meeting>, id: &RoomId, asked: &Position, page: Page, now: u64) -> Filled {
    let Some(position) = room.state.position().filter(|position| position.epoch == asked.epoch) else {
        return Filled::Not;
    };
    let standing =
        Standing { top: Position { epoch: Arc::clone(&page.epoch), seq: page.top_seq }, first_seq: page.first_seq };
    if standing.top.epoch != position.epoch {
        meeting::resync(room, id, Reload::EpochChanged, &standing);
        Filled::ByReload
    } else if standing.top.seq > position.seq && standing.first_seq > position.seq + 1 {
        meeting::resync(room, id, Reload::WindowExceeded, &standing);
        Filled::ByReload
    } else {
        for event in page.items {
            meeting::deliver(room, event, now);
        }
        Filled::ByEvents
    }
}
