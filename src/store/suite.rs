//! What every [`Store`] has to do, as tests that run on each backend: see [`store_suite`].

use std::{
    collections::{BTreeSet, HashSet},
    sync::{Arc, Mutex},
    thread,
};

use super::{
    Answer, Append, Appended, Change, Content, From, InboxPage, InboxRange, InboxRead, Kind, Known, LogEvent, Marked,
    Missed, Notification, Open, Opened, Page, Position, REMINDER_TAKEN_MS, Range, Read, Reminder, Reminders, Standing,
    Store, StoreError, Unread,
};
use crate::types::{MessageId, RoomId};

/// One test for each case, on stores that `$make` makes: a `fn(SuiteLimits) -> impl Store`. Each backend compares itself
/// [with a model](compare_with_a_model) beside, as much as its speed allows.
macro_rules! store_suite {
    ($module:ident, $make:expr) => {
        mod $module {
            use super::*;

            $crate::store::suite::store_suite! { @cases $make;
                a_log_counts_from_one
                payloads_get_their_place_in_front
                times_never_go_back
                a_repeat_is_answered_as_the_first_time
                a_client_id_is_remembered_among_the_last_thousand
                a_repeated_update_is_known_for_ten_minutes_and_among_the_last
                a_closed_meeting_is_read_only
                replies_need_a_message
                edits_are_for_authors_and_moderators
                a_deletion_erases_every_text
                deleting_twice_is_deleting_once
                reactions_are_counted
                emoji_are_limited
                reactions_need_a_message
                a_log_keeps_its_last_events
                a_log_keeps_events_for_their_time
                who_joins_gets_the_last_events
                who_comes_back_gets_all_or_nothing
                logs_are_checked
                who_knows_less_changes_nothing
                pages_go_both_ways
                unread_is_what_others_wrote_above_the_mark
                unread_outlives_the_log
                unread_is_capped
                marks_only_move_forward
                marks_begin_where_the_reader_joins
                the_meetings_that_moved_last_are_told
                marks_of_a_user_are_limited
                an_inbox_numbers_and_pages
                what_is_not_kept_is_told_once_in_a_minute
                a_notification_may_have_a_long_name
                an_inbox_is_limited
                an_inbox_forgets
                reading_an_inbox
                a_claim_holds_for_its_time
                a_reminder_is_given_until_it_is_done
                an_erased_meeting_begins_anew
                an_erased_user_is_forgotten
                nothing_is_made_by_asking
                threads_share_a_log
            }
        }
    };
    (@cases $make:expr; $($case:ident)*) => {
        $(#[test]
        fn $case() {
            $crate::store::suite::$case($make);
        })*
    };
}
pub(super) use store_suite;

/// What a store is made with.
#[derive(Clone, Copy)]
pub(super) struct SuiteLimits {
    /// Events in a log.
    pub(super) history_size: usize,
    /// How long they are kept, in ms.
    pub(super) history_ttl_ms: u64,
}

/// A time like today's.
const NOW: u64 = 1_760_000_000_000;
const MINUTE: u64 = 60_000;
const HOUR: u64 = 60 * MINUTE;
const DAY: u64 = 24 * HOUR;
const LIMITS: SuiteLimits = SuiteLimits { history_size: 1000, history_ttl_ms: 7 * DAY };

fn wait<T: Unpin>(answer: Answer<'_, T>) -> T {
    smol::block_on(answer).unwrap()
}

fn room(name: &str) -> RoomId {
    RoomId::new(name)
}

fn id(number: u128) -> MessageId {
    MessageId::new(NOW, number)
}

/// `{"meeting_id":"m","sender":…,"text":…}`, of which the text can be erased.
fn text(sender: &str, text: &str) -> Content {
    let kept = format!("{{\"meeting_id\":\"m\",\"sender\":\"{sender}\",");
    Content { json: format!("{kept}\"text\":\"{text}\"}}").into(), erasable_from: Some(kept.len() as u32) }
}

fn plain(json: &str) -> Content {
    Content { json: json.into(), erasable_from: None }
}

fn message(number: u128) -> Change {
    Change::Message {
        id: id(number),
        content: text("a", &format!("text {number}")),
        client_id: None,
        fingerprint: 0,
        reply_to: None,
    }
}

fn message_by_client(number: u128, by_client: &str, print: u64) -> Change {
    match message(number) {
        Change::Message { id, content, reply_to, .. } => {
            Change::Message { id, content, client_id: Some(by_client.into()), fingerprint: print, reply_to }
        }
        other => other,
    }
}

fn reply(number: u128, to: u128) -> Change {
    match message(number) {
        Change::Message { id: own, content, client_id, fingerprint, .. } => {
            Change::Message { id: own, content, client_id, fingerprint, reply_to: Some(id(to)) }
        }
        other => other,
    }
}

fn edit(number: u128, is_moderator: bool) -> Change {
    Change::Edit { id: id(number), content: text("a", "edited"), is_moderator }
}

fn delete(number: u128, is_moderator: bool) -> Change {
    Change::Delete { id: id(number), content: plain(r#"{"deleted_by":"a"}"#), is_moderator }
}

fn react(number: u128, emoji: &str, is_removal: bool) -> Change {
    Change::React { id: id(number), content: plain(r#"{"emoji":"x"}"#), emoji: emoji.into(), is_removal }
}

fn update(event_id: &str) -> Change {
    Change::Update { content: plain(r#"{"type":"meeting.updated"}"#), event_id: event_id.into() }
}

fn append_to(
    store: &impl Store,
    meeting: &str,
    author: &str,
    change: Change,
    now: u64,
) -> Result<Appended, StoreError> {
    smol::block_on(store.append(Append { meeting: room(meeting), author: author.into(), change, known: None }, now))
}

/// Appends to the meeting `m`, by `a`.
fn append(store: &impl Store, change: Change, now: u64) -> Result<Appended, StoreError> {
    append_to(store, "m", "a", change, now)
}

/// The seq of what was appended, or of what it repeats (`false`).
fn seq(appended: Result<Appended, StoreError>) -> (u64, bool) {
    let appended = appended.unwrap();
    if let Some(event) = &appended.event {
        assert_eq!((event.seq, &event.epoch), (appended.place.seq, &appended.place.epoch));
    }
    (appended.place.seq, appended.event.is_some())
}

fn page(store: &impl Store, from: From, limit: usize, now: u64) -> Page {
    wait(store.range(Range { meeting: room("m"), from, epoch: None, limit, kinds: Vec::new() }, now))
}

fn jsons(store: &impl Store, now: u64) -> Vec<String> {
    page(store, From::Top, usize::MAX, now).items.iter().map(|event| event.json.to_string()).collect()
}

fn seqs(events: &[LogEvent]) -> Vec<u64> {
    events.iter().map(|event| event.seq).collect()
}

fn first_and_top(store: &impl Store, now: u64) -> (u64, u64) {
    let page = page(store, From::Top, 0, now);
    (page.first_seq, page.top_seq)
}

fn opening(meeting: &str) -> Open {
    Open { meeting: room(meeting), reader: None, since: None, limit: 0, known: None }
}

fn open(store: &impl Store, open: Open, now: u64) -> Opened {
    wait(store.open(open, now))
}

fn join(store: &impl Store, meeting: &str, reader: &str, now: u64) -> Opened {
    open(store, Open { reader: Some(reader.into()), ..opening(meeting) }, now)
}

fn mark(store: &impl Store, meeting: &str, user: &str, seq: u64, now: u64) -> (u64, bool) {
    let Marked { seq, has_moved } = wait(store.mark_read(&room(meeting), &user.into(), seq, now));
    (seq, has_moved)
}

fn unread_in(store: &impl Store, meeting: &str, user: &str, now: u64) -> Option<u32> {
    let unread = wait(store.unread(user, now));
    unread.meetings.iter().find(|(id, _)| id.as_str() == meeting).map(|(_, unread)| *unread)
}

fn readers(store: &impl Store, meeting: &str) -> BTreeSet<String> {
    wait(store.readers(&room(meeting), NOW)).iter().map(|user| user.to_string()).collect()
}

fn note(name: &str) -> Notification {
    let json = format!("{{\"id\":\"{name}\",\"kind\":\"k\",\"ts\":1}}");
    Notification { id: name.into(), json: json.into(), is_kept: true, expires_at: None }
}

fn noted(nseq: usize, name: &str, is_read: bool) -> String {
    format!("{{\"nseq\":{nseq},\"id\":\"{name}\",\"kind\":\"k\",\"ts\":1,\"read\":{is_read}}}")
}

fn notify(store: &impl Store, user: &str, notification: Notification, now: u64) -> Option<String> {
    wait(store.notify(&user.into(), notification, now)).json
}

fn inbox(store: &impl Store, user: &str, from: From, limit: usize, unread_only: bool, now: u64) -> InboxPage {
    wait(store.inbox(user, InboxRange { from, limit, unread_only }, now))
}

/// The numbers in a page, and whether there are more.
fn nseqs(page: &InboxPage) -> (Vec<u64>, bool) {
    let nseq = |json: &String| {
        json.strip_prefix("{\"nseq\":").and_then(|json| json.split(',').next()).and_then(|nseq| nseq.parse().ok())
    };
    (page.items.iter().map(|json| nseq(json).unwrap()).collect(), page.has_more)
}

pub(super) fn a_log_counts_from_one<S: Store>(make: impl Fn(SuiteLimits) -> S) {
    let store = make(LIMITS);
    let opened = open(&store, opening("m"), NOW);
    let epoch = Arc::clone(&opened.epoch);
    assert!(epoch.len() == 12 && epoch.bytes().all(|byte| byte.is_ascii_alphanumeric()), "{epoch}");
    assert_eq!(opened, Opened { epoch, seq: 0, first_seq: 1, recovered: None, events: Vec::new() });
    for number in 1..=3 {
        let appended = append(&store, message(number), NOW + number as u64).unwrap();
        assert_eq!(appended.place.seq, number as u64);
        assert_eq!((appended.place.id, appended.place.ts), (Some(id(number)), NOW + number as u64));
        assert_eq!((&appended.place.epoch, appended.version, &appended.reply_author), (&opened.epoch, 0, &None));
        assert!(appended.event.is_some());
    }
    let other = append_to(&store, "other", "a", message(4), NOW).unwrap();
    assert_eq!(other.place.seq, 1);
    assert_ne!(other.place.epoch, opened.epoch);
    assert_eq!(open(&store, opening("m"), NOW).epoch, opened.epoch);
    assert_eq!(page(&store, From::Top, 1, NOW).epoch, opened.epoch);
    // The first that is heard of a meeting may be its history.
    let range = Range { meeting: room("new"), from: From::Top, epoch: None, limit: 1, kinds: Vec::new() };
    let unseen = wait(store.range(range, NOW));
    assert_eq!((unseen.top_seq, unseen.first_seq, unseen.items.len(), unseen.has_more), (0, 1, 0, false));
    assert_eq!(append_to(&store, "new", "a", message(5), NOW).unwrap().place.epoch, unseen.epoch);
}

pub(super) fn payloads_get_their_place_in_front<S: Store>(make: impl Fn(SuiteLimits) -> S) {
    let store = make(LIMITS);
    let changes = [message(1), edit(1, false), edit(1, false), react(1, "x", false), update("e"), delete(1, false)];
    let id = id(1);
    let kinds = [
        Kind::ChatMessage,
        Kind::MessageEdited,
        Kind::MessageEdited,
        Kind::MessageReaction,
        Kind::MeetingUpdate,
        Kind::MessageDeleted,
    ];
    let epoch = open(&store, opening("m"), NOW).epoch;
    let place = |seq: u64| format!(r#""seq":{seq},"epoch":"{epoch}","ts":{}"#, NOW + seq);
    let expected = [
        format!(r#"{{"id":"{id}",{},"meeting_id":"m","sender":"a","text":"text 1"}}"#, place(1)),
        format!(r#"{{"id":"{id}",{},"version":1,"meeting_id":"m","sender":"a","text":"edited"}}"#, place(2)),
        format!(r#"{{"id":"{id}",{},"version":2,"meeting_id":"m","sender":"a","text":"edited"}}"#, place(3)),
        format!(r#"{{"id":"{id}",{},"count":1,"emoji":"x"}}"#, place(4)),
        format!(r#"{{{},"type":"meeting.updated"}}"#, place(5)),
        format!(r#"{{"id":"{id}",{},"deleted_by":"a"}}"#, place(6)),
    ];
    for (index, change) in changes.into_iter().enumerate() {
        let appended = append(&store, change, NOW + index as u64 + 1).unwrap();
        let event = appended.event.unwrap();
        assert_eq!((event.kind, &*event.json), (kinds[index], &*expected[index]));
        let version = if kinds[index] == Kind::MessageEdited { index as u32 } else { 0 };
        assert_eq!(appended.version, version);
        assert_eq!(appended.place.id, (event.kind != Kind::MeetingUpdate).then_some(id));
        if index < 5 {
            assert_eq!(page(&store, From::Top, 1, NOW + 6).items, [event]);
        }
    }
}

pub(super) fn times_never_go_back<S: Store>(make: impl Fn(SuiteLimits) -> S) {
    let store = make(LIMITS);
    for (number, now, ts) in [(1, NOW, NOW), (2, NOW - 5, NOW), (3, NOW + 1, NOW + 1), (4, 0, NOW + 1)] {
        let appended = append(&store, message(number), now).unwrap();
        assert_eq!(appended.place.ts, ts);
        assert!(appended.event.unwrap().json.contains(&format!("\"ts\":{ts},")));
    }
}

pub(super) fn a_repeat_is_answered_as_the_first_time<S: Store>(make: impl Fn(SuiteLimits) -> S) {
    let store = make(SuiteLimits { history_size: 5, ..LIMITS });
    let first = append(&store, message_by_client(1, "c", 7), NOW).unwrap();
    assert!(first.event.is_some());
    let repeat = Appended { event: None, ..first.clone() };
    assert_eq!(append(&store, message_by_client(2, "c", 7), NOW + 10).as_ref(), Ok(&repeat));
    assert_eq!(append(&store, message_by_client(3, "c", 8), NOW + 10), Err(StoreError::ClientIdReused));
    // Another author's, another meeting's and another client_id are others; without one, nothing is.
    assert_eq!(seq(append_to(&store, "m", "b", message_by_client(4, "c", 8), NOW)), (2, true));
    assert_eq!(seq(append_to(&store, "other", "a", message_by_client(5, "c", 8), NOW)), (1, true));
    assert_eq!(seq(append(&store, message_by_client(6, "C", 7), NOW)), (3, true));
    assert_eq!(seq(append(&store, message(7), NOW)), (4, true));
    assert_eq!(seq(append(&store, message(8), NOW)), (5, true));
    // Trimmed, deleted or closed meanwhile: it is still the same message.
    assert_eq!(seq(append(&store, delete(1, false), NOW)), (6, true));
    assert_eq!(first_and_top(&store, NOW), (2, 6));
    wait(store.close_at(&room("m"), Some(NOW), NOW));
    assert_eq!(append(&store, message_by_client(9, "c", 7), NOW + 20).as_ref(), Ok(&repeat));
    assert_eq!(append(&store, message_by_client(9, "c", 8), NOW + 20), Err(StoreError::ClientIdReused));
    assert_eq!(append(&store, message_by_client(9, "new", 7), NOW + 20), Err(StoreError::Closed));
    assert_eq!(first_and_top(&store, NOW), (2, 6));
}

pub(super) fn a_client_id_is_remembered_among_the_last_thousand<S: Store>(make: impl Fn(SuiteLimits) -> S) {
    let store = make(SuiteLimits { history_size: 10, ..LIMITS });
    for number in 0..1000 {
        assert!(seq(append(&store, message_by_client(number, &number.to_string(), 0), NOW)).1);
    }
    wait(store.sweep(NOW + DAY));
    assert_eq!(
        seq(append(&store, message_by_client(5000, "0", 0), NOW + DAY)),
        (1, false),
        "the 1000th last, a day old"
    );
    let store = make(SuiteLimits { history_size: 10, ..LIMITS });
    for number in 0..1500 {
        assert!(seq(append(&store, message_by_client(number, &number.to_string(), 0), NOW)).1);
    }
    let soon = NOW + 10 * MINUTE;
    wait(store.sweep(soon));
    assert_eq!(seq(append(&store, message_by_client(5000, "0", 0), soon)), (1, false), "the 1500th last, 10 min old");
}

pub(super) fn a_repeated_update_is_known_for_ten_minutes_and_among_the_last<S: Store>(make: impl Fn(SuiteLimits) -> S) {
    let store = make(SuiteLimits { history_size: 1, ..LIMITS });
    let first = append(&store, update("e"), NOW).unwrap();
    assert_eq!((first.place.id, first.event.is_some()), (None, true));
    assert_eq!(seq(append(&store, update("f"), NOW)), (2, true));
    let repeat = append(&store, update("e"), NOW + 10 * MINUTE).unwrap();
    assert_eq!(repeat, Appended { event: None, ..first });
    let late = NOW + 10 * MINUTE + 1;
    for number in 3..=16 {
        assert_eq!(seq(append(&store, update(&number.to_string()), late)), (number, true));
    }
    assert_eq!(seq(append(&store, update("e"), late)), (1, false));
    assert_eq!(seq(append(&store, update("17"), late)), (17, true));
    assert_eq!(seq(append(&store, update("e"), late)), (18, true));
    // A client_id is something else.
    assert_eq!(seq(append(&store, message_by_client(1, "e", 0), late)), (19, true));
}

pub(super) fn a_closed_meeting_is_read_only<S: Store>(make: impl Fn(SuiteLimits) -> S) {
    let store = make(LIMITS);
    let at = NOW + HOUR;
    append(&store, message(1), NOW).unwrap();
    append(&store, message(2), NOW).unwrap();
    append(&store, delete(2, false), NOW).unwrap();
    let close_at = |at| wait(store.close_at(&room("m"), at, NOW));
    assert_eq!(close_at(None), None);
    assert_eq!(close_at(Some(at + 1)), None);
    assert_eq!(close_at(Some(at)), Some(at + 1));
    assert_eq!(seq(append(&store, message(3), at - 1)), (4, true));
    let all = [message(4), edit(1, true), delete(1, true), react(1, "x", false), react(1, "x", true)];
    for change in &all {
        assert_eq!(append(&store, change.clone(), at), Err(StoreError::Closed), "{change:?}");
    }
    // What does not exist is not there to be closed; what was done already is answered.
    assert_eq!(append(&store, edit(99, true), at), Err(StoreError::NoMessage));
    assert_eq!(append_to(&store, "m", "b", edit(1, false), at), Err(StoreError::Closed));
    assert_eq!(append_to(&store, "m", "b", delete(2, false), at), Err(StoreError::Closed));
    assert_eq!(seq(append(&store, delete(2, false), at)), (3, false));
    assert_eq!(seq(append(&store, update("e"), at)), (5, true));
    assert_eq!(page(&store, From::Top, 10, at).items.len(), 5);
    assert_eq!(mark(&store, "m", "a", 5, at), (5, true));
    assert_eq!(close_at(None), Some(at));
    assert_eq!(seq(append(&store, message(4), at)), (6, true));
    // A meeting may be closed before anything was written.
    assert_eq!(wait(store.close_at(&room("new"), Some(NOW), NOW)), None);
    assert_eq!(append_to(&store, "new", "a", message(1), NOW), Err(StoreError::Closed));
}

pub(super) fn replies_need_a_message<S: Store>(make: impl Fn(SuiteLimits) -> S) {
    let store = make(SuiteLimits { history_size: 4, ..LIMITS });
    assert_eq!(append(&store, reply(1, 1), NOW), Err(StoreError::NoReplyTarget));
    assert_eq!(seq(append_to(&store, "m", "b", message(1), NOW)), (1, true));
    assert_eq!(append(&store, reply(2, 1), NOW).unwrap().reply_author.as_deref(), Some("b"));
    assert_eq!(append(&store, reply(3, 2), NOW).unwrap().reply_author.as_deref(), Some("a"));
    assert_eq!(append_to(&store, "other", "a", reply(4, 1), NOW), Err(StoreError::NoReplyTarget), "elsewhere");
    append(&store, delete(2, false), NOW).unwrap();
    assert_eq!(append(&store, reply(4, 2), NOW), Err(StoreError::NoReplyTarget), "deleted");
    assert_eq!(first_and_top(&store, NOW), (1, 4), "what is refused is not logged");
    assert_eq!(seq(append(&store, reply(4, 1), NOW)), (5, true), "the oldest in the log");
    assert_eq!(append(&store, reply(5, 1), NOW), Err(StoreError::NoReplyTarget), "trimmed");
}

pub(super) fn edits_are_for_authors_and_moderators<S: Store>(make: impl Fn(SuiteLimits) -> S) {
    let store = make(LIMITS);
    append(&store, message(1), NOW).unwrap();
    append(&store, message(2), NOW).unwrap();
    append(&store, delete(2, false), NOW).unwrap();
    let (day, later) = (NOW + DAY, NOW + DAY + 1);
    let cases = [
        ("the author", "a", 1, false, NOW, Ok((4, 1))),
        ("again, at the last moment", "a", 1, false, day, Ok((5, 2))),
        ("too late, although it was edited since", "a", 1, false, later, Err(StoreError::NotAllowed)),
        ("never too late for a moderator", "b", 1, true, later, Ok((6, 3))),
        ("or for one who is the author", "a", 1, true, later, Ok((7, 4))),
        ("somebody else", "b", 1, false, NOW, Err(StoreError::NotAllowed)),
        ("no such message", "a", 99, true, NOW, Err(StoreError::NoMessage)),
        ("a deleted one", "a", 2, false, NOW, Err(StoreError::Deleted)),
        ("a deleted one, by a moderator", "b", 2, true, NOW, Err(StoreError::Deleted)),
        ("a deleted one, by somebody else", "b", 2, false, NOW, Err(StoreError::NotAllowed)),
    ];
    for (name, author, number, is_moderator, now, expected) in cases {
        let edited = append_to(&store, "m", author, edit(number, is_moderator), now);
        assert_eq!(edited.map(|appended| (appended.place.seq, appended.version)), expected, "{name}");
    }
}

pub(super) fn a_deletion_erases_every_text<S: Store>(make: impl Fn(SuiteLimits) -> S) {
    let store = make(LIMITS);
    let by_moderator = Change::Edit { id: id(1), content: text("a", "S3CRET \u{e9}"), is_moderator: true };
    append(&store, message(1), NOW).unwrap();
    append(&store, message(2), NOW).unwrap();
    append(&store, by_moderator, NOW).unwrap();
    append(&store, react(1, "x", false), NOW).unwrap();
    append(&store, edit(2, false), NOW).unwrap();
    append(&store, edit(1, false), NOW).unwrap();
    let before = jsons(&store, NOW);
    assert_eq!(append_to(&store, "m", "b", delete(1, false), NOW), Err(StoreError::NotAllowed));
    assert_eq!(jsons(&store, NOW), before);
    let deleted = append(&store, delete(1, false), NOW).unwrap();
    assert_eq!((deleted.place.seq, deleted.place.id, deleted.version), (7, Some(id(1)), 0));
    let after = jsons(&store, NOW);
    assert_eq!(after.len(), 7);
    let erased = |json: &str| format!(r#"{},"text":"","deleted":true}}"#, &json[..json.find(",\"text\"").unwrap()]);
    for (index, (before, after)) in before.iter().zip(&after).enumerate() {
        let is_of_deleted = matches!(index, 0 | 2 | 5);
        assert_eq!(*after, if is_of_deleted { erased(before) } else { before.clone() }, "event {index}");
    }
    assert_eq!(after[6], &*deleted.event.unwrap().json);
    // The other message can be deleted by a moderator.
    assert_eq!(seq(append_to(&store, "m", "b", delete(2, true), NOW)), (8, true));
    assert!(jsons(&store, NOW).iter().all(|json| !json.contains("edited") && !json.contains("text 2")));
    assert_eq!(append(&store, delete(99, true), NOW), Err(StoreError::NoMessage));

    // A message whose edits are in the log longer than itself is not there any more.
    let store = make(SuiteLimits { history_size: 2, ..LIMITS });
    for change in [message(1), edit(1, false), edit(1, false)] {
        append(&store, change, NOW).unwrap();
    }
    for change in [edit(1, true), delete(1, true), react(1, "x", false)] {
        assert_eq!(append(&store, change, NOW), Err(StoreError::NoMessage));
    }
    // One whose first edits are out of the log can be deleted.
    let store = make(SuiteLimits { history_size: 3, ..LIMITS });
    for change in [update("e"), update("f"), message(1), edit(1, false), edit(1, false)] {
        append(&store, change, NOW).unwrap();
    }
    assert_eq!(seq(append(&store, delete(1, false), NOW)), (6, true));
    assert!(jsons(&store, NOW).iter().all(|json| !json.contains("edited")));
}

pub(super) fn deleting_twice_is_deleting_once<S: Store>(make: impl Fn(SuiteLimits) -> S) {
    let store = make(LIMITS);
    append(&store, message(1), NOW).unwrap();
    let first = append(&store, delete(1, false), NOW + 1).unwrap();
    append(&store, message(2), NOW + 2).unwrap();
    let again = Appended { event: None, ..first };
    assert_eq!(append(&store, delete(1, false), NOW + 3), Ok(again.clone()));
    assert_eq!(append_to(&store, "m", "b", delete(1, true), NOW + 3), Ok(again));
    assert_eq!(append_to(&store, "m", "b", delete(1, false), NOW + 3), Err(StoreError::NotAllowed));
    assert_eq!(first_and_top(&store, NOW + 3), (1, 3));
}

pub(super) fn reactions_are_counted<S: Store>(make: impl Fn(SuiteLimits) -> S) {
    let store = make(LIMITS);
    append(&store, message(1), NOW).unwrap();
    // Who, emoji, removal; the seq, and the count if that is an event.
    let steps = [
        ("a", "x", true, 1, None),
        ("a", "x", false, 2, Some(1)),
        ("b", "x", false, 3, Some(2)),
        ("b", "y", false, 4, Some(1)),
        ("a", "x", false, 2, None),
        ("b", "x", false, 3, None),
        ("c", "x", true, 4, None),
        ("a", "x", true, 5, Some(1)),
        ("a", "x", true, 5, None),
        ("b", "x", true, 6, Some(0)),
        ("a", "x", false, 7, Some(1)),
        ("b", "y", false, 4, None),
    ];
    for (step, (user, emoji, is_removal, expected_seq, count)) in steps.into_iter().enumerate() {
        let appended = append_to(&store, "m", user, react(1, emoji, is_removal), NOW + step as u64).unwrap();
        assert_eq!((appended.place.seq, appended.place.id), (expected_seq, Some(id(1))), "step {step}");
        match count {
            Some(count) => {
                let json = appended.event.unwrap().json;
                assert!(json.contains(&format!("\"count\":{count},\"emoji\"")), "step {step}: {json}");
            }
            None => assert_eq!(appended.event, None, "step {step}"),
        }
    }
    // Of an earlier event the time is told as well.
    assert_eq!(append_to(&store, "m", "b", react(1, "y", false), NOW + 99).unwrap().place.ts, NOW + 3);
    // An edit is the message's last event too.
    append(&store, edit(1, false), NOW + 99).unwrap();
    let last = append(&store, react(1, "z", true), NOW + 99).unwrap();
    assert_eq!((last.place.seq, last.place.ts, last.event), (8, NOW + 99, None));
}

pub(super) fn emoji_are_limited<S: Store>(make: impl Fn(SuiteLimits) -> S) {
    let store = make(LIMITS);
    append(&store, message(1), NOW).unwrap();
    append(&store, message(2), NOW).unwrap();
    for emoji in 0..20 {
        assert!(seq(append(&store, react(1, &emoji.to_string(), false), NOW)).1);
    }
    assert_eq!(append(&store, react(1, "20", false), NOW), Err(StoreError::TooManyReactions));
    assert_eq!(seq(append(&store, react(1, "0", false), NOW)), (3, false));
    assert_eq!(seq(append_to(&store, "m", "b", react(1, "0", false), NOW)), (23, true), "no other emoji");
    assert_eq!(seq(append(&store, react(2, "20", false), NOW)), (24, true), "another message");
    assert_eq!(seq(append(&store, react(1, "0", true), NOW)), (25, true));
    assert_eq!(append(&store, react(1, "20", false), NOW), Err(StoreError::TooManyReactions), "b has it still");
    assert_eq!(seq(append_to(&store, "m", "b", react(1, "0", true), NOW)), (26, true));
    assert_eq!(seq(append(&store, react(1, "20", false), NOW)), (27, true));
}

pub(super) fn reactions_need_a_message<S: Store>(make: impl Fn(SuiteLimits) -> S) {
    let store = make(LIMITS);
    append(&store, message(1), NOW).unwrap();
    append(&store, react(1, "x", false), NOW).unwrap();
    append(&store, delete(1, false), NOW).unwrap();
    for is_removal in [false, true] {
        assert_eq!(append(&store, react(1, "x", is_removal), NOW), Err(StoreError::Deleted));
        assert_eq!(append(&store, react(99, "x", is_removal), NOW), Err(StoreError::NoMessage));
    }
}

pub(super) fn a_log_keeps_its_last_events<S: Store>(make: impl Fn(SuiteLimits) -> S) {
    let store = make(SuiteLimits { history_size: 3, ..LIMITS });
    for (number, first) in [(1, 1), (2, 1), (3, 1), (4, 2), (5, 3)] {
        append(&store, message(number), NOW).unwrap();
        assert_eq!(first_and_top(&store, NOW), (first, number as u64));
        let items = page(&store, From::Top, 10, NOW).items;
        assert_eq!(seqs(&items), (first..=number as u64).collect::<Vec<_>>());
    }
    assert_eq!(append(&store, edit(2, true), NOW), Err(StoreError::NoMessage));
    assert_eq!(seq(append(&store, edit(3, true), NOW)), (6, true));
}

pub(super) fn a_log_keeps_events_for_their_time<S: Store>(make: impl Fn(SuiteLimits) -> S) {
    for is_swept in [false, true] {
        let store = make(SuiteLimits { history_ttl_ms: HOUR, ..LIMITS });
        let epoch = append(&store, message(1), NOW).unwrap().place.epoch;
        append(&store, message(2), NOW + 10).unwrap();
        for (now, first) in [(NOW + HOUR, 1), (NOW + HOUR + 1, 2), (NOW + HOUR + 10, 2), (NOW + HOUR + 11, 3)] {
            if is_swept {
                wait(store.sweep(now));
            }
            assert_eq!(first_and_top(&store, now), (first, 2), "at {}", now - NOW);
            assert_eq!(open(&store, opening("m"), now).first_seq, first);
        }
        let now = NOW + 2 * HOUR;
        assert_eq!(append(&store, edit(2, true), now), Err(StoreError::NoMessage));
        let next = append(&store, message(3), now).unwrap().place;
        assert_eq!((next.seq, next.epoch), (3, epoch), "neither the top nor the epoch change");
    }
    let store = make(SuiteLimits { history_ttl_ms: HOUR, ..LIMITS });
    append(&store, message(1), NOW).unwrap();
    assert_eq!(append(&store, edit(1, true), NOW + HOUR + 1), Err(StoreError::NoMessage), "as the first access");
}

pub(super) fn who_joins_gets_the_last_events<S: Store>(make: impl Fn(SuiteLimits) -> S) {
    let store = make(SuiteLimits { history_size: 4, ..LIMITS });
    for number in 1..=6 {
        append(&store, message(number), NOW).unwrap();
    }
    let kept = page(&store, From::Top, 10, NOW).items;
    for (limit, first) in [(0, 7), (1, 6), (3, 4), (4, 3), (5, 3), (usize::MAX, 3)] {
        let opened = open(&store, Open { limit, ..opening("m") }, NOW);
        assert_eq!((opened.seq, opened.first_seq, opened.recovered), (6, 3, None), "limit {limit}");
        assert_eq!(opened.events, kept[first as usize - 3..], "limit {limit}");
    }
}

pub(super) fn who_comes_back_gets_all_or_nothing<S: Store>(make: impl Fn(SuiteLimits) -> S) {
    let store = make(SuiteLimits { history_size: 5, ..LIMITS });
    for number in 1..=8 {
        append(&store, message(number), NOW).unwrap();
    }
    let epoch = open(&store, opening("m"), NOW).epoch;
    #[expect(clippy::type_complexity, reason = "a table: one row, one case")]
    let cases: &[(&str, &str, u64, usize, Result<&[u64], Missed>)] = &[
        ("nothing missed", &epoch, 8, 300, Ok(&[])),
        ("nothing missed, nothing wanted", &epoch, 8, 0, Ok(&[])),
        ("one missed", &epoch, 7, 300, Ok(&[8])),
        ("exactly as many as wanted", &epoch, 5, 3, Ok(&[6, 7, 8])),
        ("one more", &epoch, 4, 3, Err(Missed::TooMany)),
        ("all that is kept", &epoch, 3, 300, Ok(&[4, 5, 6, 7, 8])),
        ("one more than is kept", &epoch, 2, 300, Err(Missed::Window)),
        ("neither kept nor few", &epoch, 0, 3, Err(Missed::Window)),
        ("more than there is", &epoch, 9, 300, Err(Missed::Epoch)),
        ("far more than there is", &epoch, u64::MAX, 300, Err(Missed::Epoch)),
        ("another log", "another12345", 7, 300, Err(Missed::Epoch)),
        ("another log, at 0", "", 0, 300, Err(Missed::Epoch)),
    ];
    for (name, of, since, limit, expected) in cases {
        let since = Some(Position { epoch: (*of).into(), seq: *since });
        let opened = open(&store, Open { since, limit: *limit, ..opening("m") }, NOW);
        assert_eq!((&opened.epoch, opened.seq, opened.first_seq), (&epoch, 8, 4), "{name}");
        assert_eq!(opened.recovered, Some(expected.map(|_| ())), "{name}");
        assert_eq!(seqs(&opened.events), expected.unwrap_or(&[]), "{name}");
    }
    // What a client claims changes nothing.
    assert_eq!(open(&store, opening("m"), NOW).epoch, epoch);
    // Everything that is kept is gone: whoever has seen it all has missed nothing.
    let now = NOW + 8 * DAY;
    for (since, expected) in [(8, Ok(())), (7, Err(Missed::Window))] {
        let since = Some(Position { epoch: Arc::clone(&epoch), seq: since });
        let opened = open(&store, Open { since, limit: 300, ..opening("m") }, now);
        assert_eq!((opened.recovered, opened.first_seq, opened.events.len()), (Some(expected), 9, 0));
    }
    // From the very beginning.
    let store = make(LIMITS);
    let since = Some(Position { epoch: open(&store, opening("m"), NOW).epoch, seq: 0 });
    let again = Open { since, limit: 300, ..opening("m") };
    assert_eq!(open(&store, again.clone(), NOW).recovered, Some(Ok(())));
    append(&store, message(1), NOW).unwrap();
    assert_eq!(seqs(&open(&store, again, NOW).events), [1]);
}

pub(super) fn logs_are_checked<S: Store>(make: impl Fn(SuiteLimits) -> S) {
    let store = make(SuiteLimits { history_size: 3, ..LIMITS });
    for number in 1..=5 {
        append(&store, message(number), NOW).unwrap();
    }
    let epoch = open(&store, opening("m"), NOW).epoch;
    let known = Some(Position { epoch: Arc::clone(&epoch), seq: 5 });
    let asked = ["m", "n", "m"].map(|meeting| Known { meeting: room(meeting), known: known.clone() });
    let checked = wait(store.check(asked.into(), NOW));
    let top = Position { epoch, seq: 5 };
    assert_eq!(checked[0], Standing { top: top.clone(), first_seq: 3 });
    assert_eq!((checked[1].top.seq, checked[1].first_seq), (0, 1));
    assert_ne!(checked[1].top.epoch, top.epoch);
    assert_eq!(checked[2], checked[0]);
    assert_eq!(
        open(&store, opening("n"), NOW).epoch,
        checked[1].top.epoch,
        "the epoch that is told is the first event's"
    );
}

pub(super) fn who_knows_less_changes_nothing<S: Store>(make: impl Fn(SuiteLimits) -> S) {
    let store = make(LIMITS);
    for number in 1..=3 {
        append(&store, message(number), NOW).unwrap();
    }
    let epoch = open(&store, opening("m"), NOW).epoch;
    let known = |epoch: &str, seq| Some(Position { epoch: epoch.into(), seq });
    let cases = [
        ("nothing", None),
        ("before the first", known(&epoch, 0)),
        ("less", known(&epoch, 2)),
        ("all", known(&epoch, 3)),
        ("another log", known("another12345", 99)),
    ];
    for (name, known) in cases {
        assert_eq!(open(&store, Open { known: known.clone(), ..opening("m") }, NOW).epoch, epoch, "{name}");
        let checked = wait(store.check(vec![Known { meeting: room("m"), known: known.clone() }], NOW));
        assert_eq!(checked[0].top.epoch, epoch, "{name}");
        let append = Append { meeting: room("m"), author: "a".into(), change: react(1, name, false), known };
        assert_eq!(wait(store.append(append, NOW)).place.epoch, epoch, "{name}");
    }
}

pub(super) fn pages_go_both_ways<S: Store>(make: impl Fn(SuiteLimits) -> S) {
    use From::{After, Before, Top};
    const ALL: &[Kind] = &[];
    let store = make(SuiteLimits { history_size: 8, ..LIMITS });
    // 1 to 10; 3 to 10 are kept. Updates are 4, 7 and 10.
    for number in 1..=10 {
        let change = if number % 3 == 1 { update(&number.to_string()) } else { message(number) };
        append(&store, change, NOW).unwrap();
    }
    let updates = &[Kind::MeetingUpdate];
    let both = &[Kind::ChatMessage, Kind::MeetingUpdate];
    #[expect(clippy::type_complexity, reason = "a table: one row, one case")]
    let cases: &[(From, usize, &[Kind], &[u64], bool)] = &[
        (Top, 3, ALL, &[8, 9, 10], true),
        (Top, 8, ALL, &[3, 4, 5, 6, 7, 8, 9, 10], false),
        (Top, 7, ALL, &[4, 5, 6, 7, 8, 9, 10], true),
        (Top, 0, ALL, &[], true),
        (Top, 2, updates, &[7, 10], true),
        (Top, 3, updates, &[4, 7, 10], false),
        (Top, 2, both, &[9, 10], true),
        (Top, 9, &[Kind::MessageDeleted], &[], false),
        (Before(6), 2, ALL, &[4, 5], true),
        (Before(5), 2, ALL, &[3, 4], false),
        (Before(3), 2, ALL, &[], false),
        (Before(0), 2, ALL, &[], false),
        (Before(u64::MAX), 1, ALL, &[10], true),
        (Before(10), 1, updates, &[7], true),
        (Before(7), 1, updates, &[4], false),
        (After(7), 2, ALL, &[8, 9], true),
        (After(8), 2, ALL, &[9, 10], false),
        (After(10), 2, ALL, &[], false),
        (After(u64::MAX), 2, ALL, &[], false),
        (After(0), 2, ALL, &[3, 4], true),
        (After(4), 1, updates, &[7], true),
        (After(4), 2, updates, &[7, 10], false),
        (After(4), 0, updates, &[], true),
    ];
    let epoch = open(&store, opening("m"), NOW).epoch;
    for (from, limit, kinds, expected, has_more) in cases {
        for epoch in [None, Some(Arc::clone(&epoch))] {
            let range = Range { meeting: room("m"), from: *from, epoch, limit: *limit, kinds: kinds.to_vec() };
            let page = wait(store.range(range.clone(), NOW));
            assert_eq!((seqs(&page.items), page.has_more), (expected.to_vec(), *has_more), "{range:?}");
            assert_eq!((page.top_seq, page.first_seq), (10, 3), "{range:?}");
        }
    }
    let epoch = Some("another12345".into());
    let range = Range { meeting: room("m"), from: Top, epoch, limit: 1, kinds: Vec::new() };
    assert_eq!(smol::block_on(store.range(range, NOW)), Err(StoreError::EpochDiffers));
}

pub(super) fn unread_is_what_others_wrote_above_the_mark<S: Store>(make: impl Fn(SuiteLimits) -> S) {
    let store = make(LIMITS);
    append(&store, message(1), NOW).unwrap();
    join(&store, "m", "a", NOW);
    join(&store, "m", "b", NOW);
    let unread = |user| unread_in(&store, "m", user, NOW);
    assert_eq!((unread("a"), unread("b"), unread("c")), (Some(0), Some(0), None));
    append_to(&store, "m", "a", message(2), NOW).unwrap();
    append_to(&store, "m", "b", message(3), NOW).unwrap();
    append_to(&store, "m", "b", message(4), NOW).unwrap();
    assert_eq!((unread("a"), unread("b")), (Some(2), Some(1)));
    // Other events do not count, and a message counts even when it was deleted.
    for change in [update("e"), react(3, "x", false), edit(4, true), delete(4, true)] {
        append(&store, change, NOW).unwrap();
    }
    assert_eq!((unread("a"), unread("b")), (Some(2), Some(1)));
    append_to(&store, "m", "c", message(5), NOW).unwrap();
    assert_eq!((unread("a"), unread("b")), (Some(3), Some(2)));
    assert_eq!(mark(&store, "m", "a", 3, NOW), (3, true));
    assert_eq!(mark(&store, "m", "b", 2, NOW), (2, true));
    assert_eq!((unread("a"), unread("b")), (Some(2), Some(1)));
    append_to(&store, "m", "a", message(6), NOW).unwrap();
    append_to(&store, "m", "b", message(7), NOW).unwrap();
    assert_eq!((unread("a"), unread("b")), (Some(3), Some(2)));
    assert_eq!(mark(&store, "m", "a", u64::MAX, NOW), (11, true));
    assert_eq!(unread("a"), Some(0));
    append_to(&store, "m", "a", message(8), NOW).unwrap();
    assert_eq!((unread("a"), unread("b")), (Some(0), Some(3)));
}

pub(super) fn unread_outlives_the_log<S: Store>(make: impl Fn(SuiteLimits) -> S) {
    let store = make(SuiteLimits { history_size: 3, ..LIMITS });
    join(&store, "m", "a", NOW);
    for number in 1..=10 {
        append_to(&store, "m", if number % 2 == 0 { "a" } else { "b" }, message(number), NOW).unwrap();
    }
    assert_eq!(unread_in(&store, "m", "a", NOW), Some(5), "trimmed ones count");
    // 8, 9 and 10 are kept. What is out of the log counts as read, once somebody reads on.
    assert_eq!(mark(&store, "m", "a", 0, NOW), (0, false));
    assert_eq!(mark(&store, "m", "a", 3, NOW), (7, true));
    assert_eq!(unread_in(&store, "m", "a", NOW), Some(1));
    assert_eq!(mark(&store, "m", "b", 1, NOW), (7, true));
    assert_eq!(unread_in(&store, "m", "b", NOW), Some(2));
    for number in 11..=20 {
        append_to(&store, "m", "b", message(number), NOW).unwrap();
    }
    assert_eq!(unread_in(&store, "m", "a", NOW), Some(11));
    assert_eq!(mark(&store, "m", "a", 5, NOW), (7, false), "a mark below the window stays if it is not passed");
    assert_eq!(unread_in(&store, "m", "a", NOW), Some(11));
    // All events went.
    let later = NOW + 8 * DAY;
    assert_eq!(unread_in(&store, "m", "a", later), Some(11));
    assert_eq!(mark(&store, "m", "a", 8, later), (20, true));
    assert_eq!(unread_in(&store, "m", "a", later), Some(0));
}

pub(super) fn unread_is_capped<S: Store>(make: impl Fn(SuiteLimits) -> S) {
    let store = make(SuiteLimits { history_size: 10, ..LIMITS });
    join(&store, "m", "b", NOW);
    for number in 1..=998 {
        append(&store, message(number), NOW).unwrap();
    }
    for (number, expected) in [(999, 999), (1000, 999), (1001, 999)] {
        append(&store, message(number), NOW).unwrap();
        assert_eq!(unread_in(&store, "m", "b", NOW), Some(expected));
    }
    mark(&store, "m", "b", 1000, NOW);
    assert_eq!(unread_in(&store, "m", "b", NOW), Some(1));
}

pub(super) fn marks_only_move_forward<S: Store>(make: impl Fn(SuiteLimits) -> S) {
    let store = make(LIMITS);
    assert_eq!(mark(&store, "m", "a", 5, NOW), (0, true), "the first one, in an empty log");
    for number in 1..=5 {
        append_to(&store, "m", "b", message(number), NOW).unwrap();
    }
    for (asked, expected) in [(0, (0, false)), (3, (3, true)), (3, (3, false)), (1, (3, false)), (9, (5, true))] {
        assert_eq!(mark(&store, "m", "a", asked, NOW), expected, "{asked}");
        assert_eq!(unread_in(&store, "m", "a", NOW), Some(5 - expected.0 as u32));
    }
    assert_eq!(readers(&store, "m"), ["a".to_owned()].into());
}

pub(super) fn marks_begin_where_the_reader_joins<S: Store>(make: impl Fn(SuiteLimits) -> S) {
    let store = make(LIMITS);
    for number in 1..=4 {
        append_to(&store, "m", if number == 3 { "late" } else { "b" }, message(number), NOW).unwrap();
    }
    join(&store, "m", "a", NOW);
    assert_eq!(unread_in(&store, "m", "a", NOW), Some(0));
    append_to(&store, "m", "b", message(5), NOW).unwrap();
    join(&store, "m", "a", NOW);
    join(&store, "m", "late", NOW);
    assert_eq!(unread_in(&store, "m", "a", NOW), Some(1), "joining again moves no mark");
    assert_eq!(unread_in(&store, "m", "late", NOW), Some(0));
    open(&store, opening("m"), NOW);
    assert_eq!(readers(&store, "m"), ["a".to_owned(), "late".to_owned()].into());
}

pub(super) fn the_meetings_that_moved_last_are_told<S: Store>(make: impl Fn(SuiteLimits) -> S) {
    let store = make(LIMITS);
    assert_eq!(wait(store.unread("a", NOW)), Unread::default());
    for number in 0..50 {
        join(&store, &number.to_string(), "a", NOW + number);
    }
    let told = |now| {
        let unread = wait(store.unread("a", now));
        (unread.meetings.into_iter().map(|(id, _)| id.as_str().to_owned()).collect::<HashSet<_>>(), unread.is_truncated)
    };
    let all = |without: &[u64], upto: u64| {
        (0..upto).filter(|number| !without.contains(number)).map(|number| number.to_string()).collect::<HashSet<_>>()
    };
    assert_eq!(told(NOW + 60), (all(&[], 50), false));
    join(&store, "50", "a", NOW + 60);
    assert_eq!(told(NOW + 60), (all(&[0], 51), true));
    // A log that moves brings its meeting back.
    append_to(&store, "0", "b", message(1), NOW + 70).unwrap();
    assert_eq!(told(NOW + 70), (all(&[1], 51), true));
    // And so does a mark.
    append_to(&store, "1", "b", message(1), NOW - 1).unwrap();
    assert_eq!(told(NOW + 70), (all(&[1], 51), true));
    assert_eq!(mark(&store, "1", "a", 1, NOW + 80), (1, true));
    assert_eq!(told(NOW + 80), (all(&[2], 51), true));
}

pub(super) fn marks_of_a_user_are_limited<S: Store>(make: impl Fn(SuiteLimits) -> S) {
    let store = make(LIMITS);
    for number in 0..1000 {
        join(&store, &number.to_string(), "a", NOW);
    }
    append_to(&store, "0", "b", message(1), NOW).unwrap();
    assert_eq!(mark(&store, "0", "a", 1, NOW), (1, true), "a mark that moves is as young as a new one");
    assert_eq!((readers(&store, "0").len(), readers(&store, "1").len()), (1, 1));
    join(&store, "1000", "a", NOW);
    assert_eq!((readers(&store, "0").len(), readers(&store, "1").len(), readers(&store, "1000").len()), (1, 0, 1));
    join(&store, "1", "a", NOW);
    assert_eq!((readers(&store, "0").len(), readers(&store, "1").len(), readers(&store, "2").len()), (1, 1, 0));
    assert!(wait(store.unread("a", NOW)).is_truncated);
}

pub(super) fn an_inbox_numbers_and_pages<S: Store>(make: impl Fn(SuiteLimits) -> S) {
    use From::{After, Before, Top};
    let store = make(LIMITS);
    assert_eq!(inbox(&store, "a", Top, 10, false, NOW), InboxPage { items: Vec::new(), has_more: false, unread: 0 });
    for nseq in 1..=3 {
        let name = format!("n{nseq}");
        assert_eq!(notify(&store, "a", note(&name), NOW), Some(noted(nseq, &name, false)));
        assert_eq!(notify(&store, "a", note(&name), NOW), None, "it is there");
    }
    assert_eq!(notify(&store, "b", note("n1"), NOW), Some(noted(1, "n1", false)), "another's inbox");
    // One that is not kept has a number nevertheless.
    for (nseq, name) in [(4, "passing"), (5, "passing, too")] {
        let passing = Notification { is_kept: false, ..note(name) };
        assert_eq!(notify(&store, "a", passing, NOW), Some(noted(nseq, name, false)));
    }
    assert_eq!(notify(&store, "a", Notification { is_kept: false, ..note("n1") }, NOW), None);
    assert_eq!(notify(&store, "a", note("n6"), NOW), Some(noted(6, "n6", false)));
    let page = inbox(&store, "a", Top, 2, false, NOW);
    assert_eq!(
        page,
        InboxPage { items: vec![noted(3, "n3", false), noted(6, "n6", false)], has_more: true, unread: 4 }
    );
    wait(store.read_inbox("a", Read::Ids(vec!["n2".into()]), NOW));
    assert_eq!(inbox(&store, "a", After(1), 1, false, NOW).items, [noted(2, "n2", true)]);
    let cases: &[(From, usize, bool, &[u64], bool)] = &[
        (Top, 0, false, &[], true),
        (Top, 3, false, &[2, 3, 6], true),
        (Top, 4, false, &[1, 2, 3, 6], false),
        (Top, 3, true, &[1, 3, 6], false),
        (Top, 2, true, &[3, 6], true),
        (Before(6), 2, false, &[2, 3], true),
        (Before(6), 3, false, &[1, 2, 3], false),
        (Before(3), 1, true, &[1], false),
        (Before(1), 1, false, &[], false),
        (Before(u64::MAX), 1, false, &[6], true),
        (After(0), 2, false, &[1, 2], true),
        (After(0), 2, true, &[1, 3], true),
        (After(1), 2, true, &[3, 6], false),
        (After(3), 2, false, &[6], false),
        (After(6), 2, false, &[], false),
        (After(u64::MAX), 2, false, &[], false),
    ];
    for (from, limit, unread_only, expected, has_more) in cases {
        let page = inbox(&store, "a", *from, *limit, *unread_only, NOW);
        assert_eq!(nseqs(&page), (expected.to_vec(), *has_more), "{from:?} {limit} {unread_only}");
        assert_eq!(page.unread, 3);
    }
    assert_eq!(wait(store.unread("a", NOW)), Unread { notifications: 3, ..Unread::default() });
}

pub(super) fn what_is_not_kept_is_told_once_in_a_minute<S: Store>(make: impl Fn(SuiteLimits) -> S) {
    let store = make(LIMITS);
    let tell = |name: &str, now| notify(&store, "a", Notification { is_kept: false, ..note(name) }, now).is_some();
    assert!(tell("0", NOW));
    assert!(!tell("0", NOW + MINUTE), "whoever brings it again has not known that it was told");
    assert!(tell("0", NOW + MINUTE + 1));
    for number in 1..8 {
        assert!(tell(&number.to_string(), NOW + MINUTE + 1));
    }
    assert!(!tell("0", NOW + MINUTE + 1), "among the last eight");
    assert!(tell("8", NOW + MINUTE + 1));
    assert!(tell("0", NOW + MINUTE + 1), "it was forgotten for others");
    assert!(notify(&store, "a", note("8"), NOW + MINUTE + 1).is_some(), "what is kept has a list of its own");
    wait(store.erase_user("a", NOW));
    assert!(tell("8", NOW + MINUTE + 1), "of another inbox");
}

pub(super) fn a_notification_may_have_a_long_name<S: Store>(make: impl Fn(SuiteLimits) -> S) {
    let store = make(LIMITS);
    // As many characters as may be, of as many bytes as there are.
    let name = "\u{1f600}".repeat(64);
    assert_eq!(notify(&store, "a", note(&name), NOW), Some(noted(1, &name, false)));
    assert_eq!(notify(&store, "a", note(&name), NOW), None);
    assert_eq!(inbox(&store, "a", From::Top, 1, false, NOW).items, [noted(1, &name, false)]);
    wait(store.read_inbox("a", Read::Ids(vec![name.as_str().into()]), NOW));
    assert_eq!(inbox(&store, "a", From::Top, 1, false, NOW).items, [noted(1, &name, true)]);
}

pub(super) fn an_inbox_is_limited<S: Store>(make: impl Fn(SuiteLimits) -> S) {
    let store = make(LIMITS);
    for nseq in 1..=200 {
        notify(&store, "a", note(&nseq.to_string()), NOW);
    }
    assert_eq!(nseqs(&inbox(&store, "a", From::After(0), 1, false, NOW)).0, [1]);
    assert_eq!(inbox(&store, "a", From::Top, 300, false, NOW).items.len(), 200);
    let passing = Notification { is_kept: false, ..note("passing") };
    notify(&store, "a", passing, NOW);
    assert_eq!(nseqs(&inbox(&store, "a", From::After(0), 1, false, NOW)).0, [1], "what is not kept takes no place");
    notify(&store, "a", note("one past"), NOW);
    let page = inbox(&store, "a", From::Top, 300, false, NOW);
    assert_eq!((page.items.len(), page.unread, nseqs(&page).0[0]), (200, 200, 2));
    assert!(notify(&store, "a", note("1"), NOW).is_some(), "it went, so it is new");
}

pub(super) fn an_inbox_forgets<S: Store>(make: impl Fn(SuiteLimits) -> S) {
    let store = make(LIMITS);
    notify(&store, "a", note("1"), NOW);
    notify(&store, "a", Notification { expires_at: Some(NOW + HOUR), ..note("2") }, NOW);
    notify(&store, "a", note("3"), NOW + 1);
    let left = |now| {
        let page = inbox(&store, "a", From::Top, 10, false, now);
        assert_eq!(page.unread as usize, page.items.len());
        assert_eq!(wait(store.unread("a", now)).notifications, page.unread);
        nseqs(&page).0
    };
    for (now, expected) in [
        (NOW + HOUR - 1, &[1, 2, 3][..]),
        (NOW + HOUR, &[1, 3]),
        (NOW + 30 * DAY, &[1, 3]),
        (NOW + 30 * DAY + 1, &[3]),
        (NOW + 30 * DAY + 2, &[]),
    ] {
        assert_eq!(left(now), expected, "at {}", now - NOW);
    }
    wait(store.sweep(NOW + 30 * DAY + 1));
    assert_eq!(notify(&store, "a", note("1"), NOW + 30 * DAY + 2), Some(noted(4, "1", false)), "numbers go on");
}

pub(super) fn reading_an_inbox<S: Store>(make: impl Fn(SuiteLimits) -> S) {
    let store = make(LIMITS);
    for nseq in 1..=6 {
        notify(&store, "a", note(&nseq.to_string()), NOW);
    }
    let ids = |names: &[&str]| Read::Ids(names.iter().map(|name| (*name).into()).collect());
    for (which, unread, has_changed) in [
        (ids(&[]), 6, false),
        (ids(&["2", "5", "unknown"]), 4, true),
        (ids(&["2"]), 4, false),
        (Read::UpTo(0), 4, false),
        (Read::UpTo(3), 2, true),
        (Read::UpTo(3), 2, false),
        (Read::UpTo(5), 1, true),
        (Read::UpTo(u64::MAX), 0, true),
    ] {
        assert_eq!(wait(store.read_inbox("a", which.clone(), NOW)), InboxRead { unread, has_changed }, "{which:?}");
        assert_eq!(wait(store.unread("a", NOW)).notifications, unread);
    }
    assert!(inbox(&store, "a", From::Top, 10, false, NOW).items.iter().all(|json| json.ends_with(",\"read\":true}")));
    let nobody = InboxRead { unread: 0, has_changed: false };
    assert_eq!(wait(store.read_inbox("nobody", Read::UpTo(9), NOW)), nobody);
}

pub(super) fn a_claim_holds_for_its_time<S: Store>(make: impl Fn(SuiteLimits) -> S) {
    let store = make(LIMITS);
    let claim = |key, now| wait(store.claim(key, MINUTE, now));
    assert!(claim("k", NOW));
    assert!(!claim("k", NOW));
    assert!(claim("other", NOW));
    wait(store.sweep(NOW + MINUTE - 1));
    assert!(!claim("k", NOW + MINUTE - 1));
    assert!(claim("k", NOW + MINUTE));
    assert!(!claim("k", NOW + MINUTE + 1), "claimed anew");
    let is_held = |now| wait(store.is_held("k", now));
    assert!(!is_held(NOW + MINUTE + 1), "only claimed");
    wait(store.hold("k", 2 * MINUTE, NOW + MINUTE + 1));
    assert!(is_held(NOW + 3 * MINUTE) && !claim("k", NOW + 3 * MINUTE));
    assert!(!is_held(NOW + 3 * MINUTE + 1) && claim("k", NOW + 3 * MINUTE + 1));
    assert!(!wait(store.is_held("unheard of", NOW)));
}

pub(super) fn a_reminder_is_given_until_it_is_done<S: Store>(make: impl Fn(SuiteLimits) -> S) {
    let store = make(LIMITS);
    assert_eq!((store.next_reminder(), wait(store.take_reminders(u64::MAX))), (None, Vec::new()));
    let reminders = |starts_at: u64, due: &[(u64, &str)]| Reminders {
        starts_at,
        due: due.iter().map(|(at, offset)| (*at, (*offset).into())).collect(),
        recipients: Some(vec!["a".into(), "b".into()]),
        title: Some("Stand-up".into()),
    };
    let set = |meeting: &str, reminders| wait(store.set_reminders(&room(meeting), reminders, NOW));
    let taken = |now| {
        let mut taken = wait(store.take_reminders(now));
        taken.iter().for_each(|reminder| wait(store.drop_reminder(reminder, now)));
        taken.sort_by(|a, b| (a.due_at, &a.meeting).cmp(&(b.due_at, &b.meeting)));
        taken.into_iter().map(|reminder| (reminder.meeting.as_str().to_owned(), reminder.due_at)).collect::<Vec<_>>()
    };
    let at = |meeting: &str, due: u64| (meeting.to_owned(), due);
    set("m", reminders(NOW + 900, &[(NOW + 10, "15m"), (NOW + 20, "5m"), (NOW + 30, "0m")]));
    set("n", reminders(NOW + 900, &[(NOW + 20, "5m"), (NOW + 40, "0m")]));
    assert_eq!((store.next_reminder(), store.usage().reminders), (Some(NOW + 10), 5));
    assert_eq!(taken(NOW + 9), []);
    let first = Reminder {
        meeting: room("m"),
        starts_at: NOW + 900,
        offset: "15m".into(),
        due_at: NOW + 10,
        recipients: vec!["a".into(), "b".into()],
        title: Some("Stand-up".into()),
    };
    assert_eq!(wait(store.take_reminders(NOW + 10)), std::slice::from_ref(&first));
    assert_eq!((taken(NOW + 10), store.next_reminder()), (Vec::new(), Some(NOW + 20)));
    // Whoever took it has ended.
    let again = NOW + 10 + REMINDER_TAKEN_MS;
    assert_eq!(taken(NOW + 20), [at("m", NOW + 20), at("n", NOW + 20)]);
    assert_eq!(taken(again - 1), [at("m", NOW + 30), at("n", NOW + 40)]);
    assert_eq!((store.next_reminder(), store.usage().reminders), (Some(again), 1));
    assert_eq!(wait(store.take_reminders(again)), [Reminder { due_at: again, ..first.clone() }]);
    // Replaced meanwhile.
    set("m", reminders(NOW + 901, &[(again + 10, "15m")]));
    wait(store.drop_reminder(&first, again));
    assert_eq!(taken(again + 10), [at("m", again + 10)]);
    assert_eq!((store.next_reminder(), store.usage().reminders), (None, 0));
    wait(store.drop_reminder(&first, again));
    set("m", reminders(NOW + 900, &[(NOW + 20, "5m"), (NOW + 30, "0m")]));
    set("n", reminders(NOW + 900, &[(NOW + 20, "5m"), (NOW + 40, "0m")]));
    // Moved: what was set before is not due any more.
    set("m", reminders(NOW + 950, &[(NOW + 25, "15m"), (NOW + 35, "5m")]));
    assert_eq!(taken(NOW + 30), [at("n", NOW + 20), at("m", NOW + 25)]);
    set("m", Reminders::default());
    assert_eq!((store.next_reminder(), store.usage().reminders), (Some(NOW + 40), 1));
    wait(store.erase_meeting(&room("n"), NOW));
    assert_eq!((store.next_reminder(), taken(u64::MAX)), (None, Vec::new()));
    // Many at once come in parts, none twice.
    for number in 0..300 {
        set(&number.to_string(), reminders(NOW, &[(NOW, "0m")]));
    }
    let (first, second) = (taken(NOW), taken(NOW));
    assert_eq!((first.len(), second.len(), taken(NOW).len()), (256, 44, 0));
    assert_eq!(first.into_iter().chain(second).collect::<HashSet<_>>().len(), 300);
}

pub(super) fn an_erased_meeting_begins_anew<S: Store>(make: impl Fn(SuiteLimits) -> S) {
    let store = make(SuiteLimits { history_size: 3, ..LIMITS });
    assert_eq!(wait(store.erase_meeting(&room("m"), NOW)), 0);
    join(&store, "m", "b", NOW);
    join(&store, "n", "b", NOW);
    for number in 1..=4 {
        append(&store, message_by_client(number, &number.to_string(), 0), NOW).unwrap();
    }
    append(&store, update("e"), NOW).unwrap();
    wait(store.close_at(&room("m"), Some(NOW + 1), NOW));
    let epoch = open(&store, opening("m"), NOW).epoch;
    assert_eq!(wait(store.erase_meeting(&room("m"), NOW)), 3);
    assert_eq!(wait(store.erase_meeting(&room("m"), NOW)), 0);
    assert_eq!((readers(&store, "m").len(), unread_in(&store, "m", "b", NOW)), (0, None));
    assert_eq!(unread_in(&store, "n", "b", NOW), Some(0));
    let since = Some(Position { epoch: Arc::clone(&epoch), seq: 5 });
    let opened = open(&store, Open { since, limit: 300, ..opening("m") }, NOW + 1);
    assert_eq!((opened.recovered, opened.seq, opened.first_seq), (Some(Err(Missed::Epoch)), 0, 1));
    assert_ne!(opened.epoch, epoch);
    assert_eq!(append(&store, edit(4, true), NOW + 1), Err(StoreError::NoMessage));
    assert_eq!(seq(append(&store, message_by_client(4, "4", 0), NOW + 1)), (1, true));
    assert_eq!(seq(append(&store, update("e"), NOW + 1)), (2, true));
}

pub(super) fn an_erased_user_is_forgotten<S: Store>(make: impl Fn(SuiteLimits) -> S) {
    let store = make(LIMITS);
    assert_eq!(wait(store.erase_user("a", NOW)), 0);
    append(&store, message(1), NOW).unwrap();
    for meeting in ["m", "n"] {
        join(&store, meeting, "a", NOW);
        join(&store, meeting, "b", NOW);
    }
    for name in ["1", "2", "3"] {
        notify(&store, "a", note(name), NOW);
        notify(&store, "b", note(name), NOW);
    }
    assert_eq!(wait(store.erase_user("a", NOW)), 5);
    assert_eq!(wait(store.erase_user("a", NOW)), 0);
    assert_eq!(wait(store.unread("a", NOW)), Unread::default());
    assert_eq!(inbox(&store, "a", From::Top, 10, false, NOW).items.len(), 0);
    assert_eq!(readers(&store, "m"), ["b".to_owned()].into());
    assert_eq!(page(&store, From::Top, 10, NOW).items.len(), 1, "what they wrote stays");
    assert_eq!(wait(store.unread("b", NOW)).notifications, 3);
    // They may come again.
    append(&store, message(2), NOW).unwrap();
    join(&store, "m", "a", NOW);
    assert_eq!(unread_in(&store, "m", "a", NOW), Some(0));
}

pub(super) fn nothing_is_made_by_asking<S: Store>(make: impl Fn(SuiteLimits) -> S) {
    let store = make(LIMITS);
    let before = store.usage();
    wait(store.readers(&room("m"), NOW));
    wait(store.participant(&room("m"), "a", NOW));
    wait(store.close_at(&room("m"), None, NOW));
    wait(store.remove_participants(&room("m"), &["a".into()], NOW));
    wait(store.unread("a", NOW));
    inbox(&store, "a", From::Top, 10, false, NOW);
    wait(store.read_inbox("a", Read::UpTo(1), NOW));
    wait(store.set_reminders(&room("m"), Reminders::default(), NOW));
    wait(store.erase_meeting(&room("m"), NOW));
    wait(store.erase_user("a", NOW));
    assert_eq!(store.usage(), before);
}

/// A meeting as it would be kept if nothing cost anything: everything that ever happened, in one list.
#[derive(Default)]
struct Model {
    epoch: Option<Arc<str>>,
    events: Vec<Done>,
    marks: Vec<(usize, u64)>,
}

struct Done {
    kind: Kind,
    author: usize,
    ts: u64,
    key: Option<(bool, u64, u64)>,
}

impl Model {
    fn top(&self) -> u64 {
        self.events.len() as u64
    }

    fn first(&self, limits: SuiteLimits, now: u64) -> u64 {
        let young = self.events.iter().take_while(|event| now.saturating_sub(event.ts) > limits.history_ttl_ms).count();
        young.max(self.events.len().saturating_sub(limits.history_size)) as u64 + 1
    }

    fn unread(&self, user: usize) -> Option<u32> {
        let (_, seq) = self.marks.iter().find(|(reader, _)| *reader == user)?;
        let above = self.events.iter().skip(*seq as usize);
        Some(above.filter(|event| event.kind == Kind::ChatMessage && event.author != user).count().min(999) as u32)
    }

    /// The seq that this was logged with before, and its fingerprint.
    fn known(&self, author: usize, key: (bool, u64), now: u64) -> Option<(u64, u64)> {
        let mut updates = 0;
        let seq = self.events.iter().rposition(|event| match event.key {
            Some((true, number, _)) => key == (true, number) && event.author == author,
            Some((false, number, _)) => {
                updates += 1;
                key == (false, number) && (updates <= 16 || now - event.ts <= 10 * MINUTE)
            }
            None => false,
        })?;
        Some((seq as u64 + 1, self.events[seq].key?.2))
    }

    /// Events that are kept, of these seqs.
    fn kept(&self, limits: SuiteLimits, now: u64, seqs: impl Fn(u64) -> bool) -> Vec<u64> {
        (self.first(limits, now)..=self.top()).filter(|seq| seqs(*seq)).collect()
    }
}

/// Does the same random things to stores and to models, and looks `after` every one.
pub(super) fn compare_with_a_model<S: Store>(
    make: impl Fn(SuiteLimits) -> S,
    seeds: u64,
    steps: usize,
    after: impl Fn(&S),
) {
    const USERS: [&str; 3] = ["a", "b", "c"];
    const ROOMS: [&str; 2] = ["m", "n"];
    for seed in 0..seeds {
        let mut random = fastrand::Rng::with_seed(seed);
        let limits = SuiteLimits { history_size: random.usize(1..40), history_ttl_ms: random.u64(MINUTE..HOUR) };
        let store = make(limits);
        let mut models: [Model; 2] = Default::default();
        let mut now = NOW;
        for step in 0..steps {
            now += if random.u8(..50) == 0 { random.u64(..20 * MINUTE) } else { random.u64(..1000) };
            let (user, which) = (random.usize(..USERS.len()), random.usize(..ROOMS.len()));
            let (model, name, meeting) = (&mut models[which], USERS[user], ROOMS[which]);
            let context =
                format!("seed {seed}, step {step}, {name} in {meeting}, {limits:?}", limits = limits.history_size);
            match random.u8(..20) {
                0..8 => {
                    let is_message = random.u8(..4) > 0;
                    let key = random.bool().then(|| (is_message, random.u64(..30), random.u64(..2)));
                    let key = key.or((!is_message).then(|| (false, random.u64(30..), 0)));
                    let change = match key {
                        Some((true, number, print)) => message_by_client(step as u128, &number.to_string(), print),
                        Some((false, number, _)) => update(&number.to_string()),
                        None => message(step as u128),
                    };
                    let key =
                        key.map(|(is_message, number, print)| (is_message, number, print * u64::from(is_message)));
                    let known = key.and_then(|(is_message, number, _)| model.known(user, (is_message, number), now));
                    let expected = match (known, key) {
                        (Some((_, before)), Some((.., print))) if before != print => Err(StoreError::ClientIdReused),
                        (Some((seq, _)), _) => Ok((seq, false)),
                        _ => Ok((model.top() + 1, true)),
                    };
                    let appended = append_to(&store, meeting, name, change, now);
                    let got =
                        appended.as_ref().map(|done| (done.place.seq, done.event.is_some())).map_err(|error| *error);
                    assert_eq!(got, expected, "{context}");
                    if let Ok(Appended { event: Some(event), place, .. }) = appended {
                        assert_eq!(model.epoch.get_or_insert(place.epoch.clone()), &place.epoch, "{context}");
                        model.events.push(Done { kind: event.kind, author: user, ts: place.ts, key });
                    }
                }
                8..11 => {
                    let seq = random.u64(..model.top() + 3);
                    let epoch = model.epoch.clone().filter(|_| random.u8(..5) > 0).unwrap_or("unknown".into());
                    let is_known = Some(&epoch) == model.epoch.as_ref();
                    let since = random.bool().then_some(Position { epoch, seq });
                    let limit = random.usize(..20);
                    let reader = random.bool().then(|| name.into());
                    let top = model.top();
                    let first = model.first(limits, now);
                    let asked = Open { meeting: room(meeting), reader: reader.clone(), since, limit, known: None };
                    let opened = open(&store, asked.clone(), now);
                    let missed = model.kept(limits, now, |kept| kept > seq && kept <= top);
                    let expected = match &asked.since {
                        None => {
                            let all = model.kept(limits, now, |kept| kept <= top && kept + limit as u64 > top);
                            (None, all)
                        }
                        Some(_) if !is_known || seq > model.top() => (Some(Err(Missed::Epoch)), Vec::new()),
                        Some(_) if seq >= top => (Some(Ok(())), Vec::new()),
                        Some(_) if seq + 1 < first => (Some(Err(Missed::Window)), Vec::new()),
                        Some(_) if missed.len() > limit => (Some(Err(Missed::TooMany)), Vec::new()),
                        Some(_) => (Some(Ok(())), missed),
                    };
                    assert_eq!((opened.recovered, seqs(&opened.events)), expected, "{context}: {asked:?}");
                    assert_eq!((opened.seq, opened.first_seq), (top, first), "{context}");
                    assert_eq!(model.epoch.get_or_insert(opened.epoch.clone()), &opened.epoch, "{context}");
                    if reader.is_some() && !model.marks.iter().any(|(reader, _)| *reader == user) {
                        model.marks.push((user, top.max(first - 1)));
                    }
                }
                11..14 => {
                    let seq = random.u64(..model.top() + 3);
                    let from = [From::Top, From::Before(seq), From::After(seq)][random.usize(..3)];
                    let kinds = if random.bool() { vec![Kind::MeetingUpdate] } else { Vec::new() };
                    let limit = random.usize(..10);
                    let range = Range { meeting: room(meeting), from, epoch: None, limit, kinds };
                    let page = wait(store.range(range.clone(), now));
                    let all = model.kept(limits, now, |kept| {
                        let is_there = match from {
                            From::Top => true,
                            From::Before(seq) => kept < seq,
                            From::After(seq) => kept > seq,
                        };
                        let kind = model.events[kept as usize - 1].kind;
                        is_there && (range.kinds.is_empty() || range.kinds.contains(&kind))
                    });
                    let part = match from {
                        From::After(_) => &all[..all.len().min(limit)],
                        _ => &all[all.len().saturating_sub(limit)..],
                    };
                    assert_eq!(seqs(&page.items), part, "{context}: {range:?}");
                    assert_eq!(page.has_more, part.len() < all.len(), "{context}: {range:?}");
                    assert_eq!((page.top_seq, page.first_seq), (model.top(), model.first(limits, now)), "{context}");
                    assert_eq!(model.epoch.get_or_insert(page.epoch.clone()), &page.epoch, "{context}");
                }
                14..17 => {
                    let asked = random.u64(..model.top() + 3);
                    let target = asked.min(model.top());
                    let first = model.first(limits, now);
                    let marked = mark(&store, meeting, name, asked, now);
                    let expected = match model.marks.iter_mut().find(|(reader, _)| *reader == user) {
                        Some((_, seq)) if *seq >= target => (*seq, false),
                        Some((_, seq)) => {
                            *seq = target.max(first - 1);
                            (*seq, true)
                        }
                        None => {
                            model.marks.push((user, target.max(first - 1)));
                            (target.max(first - 1), true)
                        }
                    };
                    assert_eq!(marked, expected, "{context}: {asked}");
                    model.epoch.get_or_insert(open(&store, opening(meeting), now).epoch);
                }
                17 if random.u8(..20) == 0 => {
                    let kept = model.kept(limits, now, |_| true).len() as u64;
                    assert_eq!(wait(store.erase_meeting(&room(meeting), now)), kept, "{context}");
                    *model = Model::default();
                }
                18 if random.u8(..10) == 0 => {
                    wait(store.erase_user(name, now));
                    models.iter_mut().for_each(|model| model.marks.retain(|(reader, _)| *reader != user));
                }
                19 => wait(store.sweep(now)),
                _ => {}
            }
            for (model, meeting) in models.iter().zip(ROOMS) {
                assert_eq!(unread_in(&store, meeting, name, now), model.unread(user), "{context}: unread in {meeting}");
            }
            after(&store);
        }
    }
}

pub(super) fn threads_share_a_log<S: Store>(make: impl Fn(SuiteLimits) -> S) {
    const THREADS: usize = 4;
    const EACH: usize = 500;
    let store = make(LIMITS);
    join(&store, "m", "reader", NOW);
    let given = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for thread in 0..THREADS {
            let (store, given) = (&store, &given);
            scope.spawn(move || {
                let mut own = Vec::new();
                for number in 0..EACH {
                    let id = thread * EACH + number;
                    let first = message_by_client(id as u128, &id.to_string(), 0);
                    let place = append_to(store, "m", "a", first, NOW).unwrap().place;
                    own.push(place.seq);
                    let again = message_by_client((id + THREADS * EACH) as u128, &id.to_string(), 0);
                    assert_eq!(seq(append_to(store, "m", "a", again, NOW)), (place.seq, false));
                }
                assert!(own.is_sorted(), "a thread's own messages keep their order");
                given.lock().unwrap().extend(own);
            });
        }
    });
    let mut given = given.into_inner().unwrap();
    given.sort_unstable();
    assert_eq!(given, (1..=(THREADS * EACH) as u64).collect::<Vec<_>>(), "dense, and none twice");
    assert_eq!(seqs(&page(&store, From::Top, 1000, NOW).items), (1001..=2000).collect::<Vec<_>>());
    assert_eq!(unread_in(&store, "m", "reader", NOW), Some(999));
}
