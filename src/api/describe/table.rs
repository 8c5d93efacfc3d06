//! The one table of what clients and services may send and get. The descriptions are printed from it.
//!
//! It only describes: the readers of `chat::command` and the payloads of `chat::event` decide. Tests compare the two.

use crate::chat::{
    Code::{
        self, Conflict, Forbidden, InvalidPayload, LimitReached, NotFound, NotJoined, RateLimited, RoomClosed,
        RoomFull, TokenExpired, TokenInvalid, TooLarge, Unauthorized, Unavailable,
    },
    command::{TEXT_MAX_BYTES, TEXT_MAX_CHARS},
};

use self::Type::{
    Any, AnyLogged, Chars, Either, Fields, Flag, Integer, List, Map, Named, Names, Null, Object, Text, True,
};

/// What a value may be.
#[derive(Clone, Copy, Debug)]
pub(super) enum Type {
    /// Any JSON.
    Any,
    /// `null`.
    Null,
    /// `true` or `false`.
    Flag,
    /// `true`; where it is not, the field is missing.
    True,
    /// 0 to 2^53-1.
    Integer,
    /// Any integer.
    AnyInteger,
    /// A string.
    Text,
    /// A string of so many Unicode scalars.
    Chars(usize, usize),
    /// A string that a regular expression, anchored at both ends, matches.
    Matching(&'static str),
    /// One of these strings.
    Names(&'static [&'static str]),
    /// Any object.
    Object,
    /// An object with these fields. In what the server says, further ones may come.
    Fields(&'static [Field]),
    /// A list of one type.
    List(&'static Self),
    /// An object whose keys are ids.
    Map(&'static Self),
    /// One of these.
    Either(&'static [Self]),
    /// One of [`SHAPES`], or of what has its name from [`COMMANDS`] and [`EVENTS`].
    Named(&'static str),
    /// An event of a log: the payload of one of [`EVENTS`] that are logged, with its name as `event`.
    AnyLogged,
}

/// A field of an object, or a parameter of a query.
#[derive(Clone, Copy, Debug)]
pub(super) struct Field {
    pub(super) name: &'static str,
    pub(super) kind: Type,
    pub(super) is_required: bool,
    /// What it means, with limits and default; may be empty where the type says it all.
    pub(super) about: &'static str,
}

/// A type with a name of its own.
pub(super) struct Shape {
    pub(super) name: &'static str,
    pub(super) kind: Type,
    pub(super) about: &'static str,
}

/// An event from the client.
pub(super) struct Command {
    pub(super) name: &'static str,
    pub(super) about: &'static str,
    /// The one argument.
    pub(super) payload: Type,
    /// The fields of a successful ack beside `ok`.
    pub(super) answer: &'static [Field],
    /// What it may be refused with.
    pub(super) errors: &'static [Code],
}

/// An event from the server.
pub(super) struct Event {
    pub(super) name: &'static str,
    pub(super) about: &'static str,
    pub(super) payload: &'static [Field],
    pub(super) delivery: Delivery,
}

/// What becomes of an event that a client misses.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Delivery {
    /// It stands in the meeting's log, and is recovered.
    Logged,
    /// It is lost with the connection.
    Live,
    /// It is also dropped for clients that read slowly.
    Volatile,
}

/// Who may use an endpoint.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Auth {
    /// Everybody.
    Nobody,
    /// A user with a token.
    User,
    /// A service with the key, or with a token of the role `service`.
    Service,
}

/// A method of an HTTP path.
pub(super) struct Endpoint {
    /// `GET`, which includes `HEAD`, or another.
    pub(super) method: &'static str,
    /// Below the service's prefix, parameters in braces.
    pub(super) path: &'static str,
    pub(super) auth: Auth,
    pub(super) about: &'static str,
    pub(super) query: &'static [Field],
    /// Whether `Idempotency-Key` is read.
    pub(super) has_key: bool,
    pub(super) body: Option<Type>,
    pub(super) answers: &'static [(u16, Content)],
    /// What it may be refused with, beside what [`Auth`] implies.
    pub(super) errors: &'static [Code],
}

/// What is in an answer.
#[derive(Clone, Copy, Debug)]
pub(super) enum Content {
    /// Nothing.
    Empty,
    /// JSON.
    Json(Type),
    /// Something of this media type.
    Other(&'static str),
}

impl Auth {
    /// What anything with this protection may be refused with.
    pub(super) const fn errors(self) -> &'static [Code] {
        match self {
            Self::Nobody => &[],
            Self::User => &[Unauthorized, TokenInvalid, TokenExpired, RateLimited],
            Self::Service => &[Unauthorized, TokenInvalid, TokenExpired, Forbidden],
        }
    }
}

/// A field that is always there.
const fn must(name: &'static str, kind: Type, about: &'static str) -> Field {
    Field { name, kind, is_required: true, about }
}

/// A field that may be missing.
const fn may(name: &'static str, kind: Type, about: &'static str) -> Field {
    Field { name, kind, is_required: false, about }
}

const MEETING_ID: Type = Named("MeetingId");
const GIVEN_MEETING_ID: Type = Named("GivenMeetingId");
const USER_ID: Type = Named("UserId");
const GIVEN_USER_ID: Type = Named("GivenUserId");
const MESSAGE_ID: Type = Named("MessageId");
const CLIENT_ID: Type = Named("ClientId");
const EPOCH: Type = Named("Epoch");
const MS: Type = Named("UnixMs");
const TEXT: Type = Named("MessageText");

/// Which meeting a command is about.
const MEETING: Field = must("meeting_id", GIVEN_MEETING_ID, "Which meeting. Older clients may call it `room`.");
const WHERE: Field = must("meeting_id", MEETING_ID, "Where.");
const SEQ: Field = must("seq", Integer, "Its place in the meeting's log, from 1 without holes.");
const LIFE: Field = must("epoch", EPOCH, "The life of the log that `seq` is of.");
const TS: Field = must("ts", MS, "When, by the server's clock.");
const OF_MESSAGE: Field = must("id", MESSAGE_ID, "Of which message.");
const WHICH_MESSAGE: Field = must("id", MESSAGE_ID, "Which message.");
const DELETED: Field = may("deleted", True, "Only in a log: the message was deleted since, and its text erased.");

const BEFORE_SEQ: Field = may("before_seq", Integer, "The last events before this one. Not with `after_seq`.");
const AFTER_SEQ: Field = may("after_seq", Integer, "The first events after this one. Not with `before_seq`.");
const PAGE_EPOCH: Field = may("epoch", Chars(0, 32), "Refuse with `conflict` if the log has another epoch.");
const PAGE_LIMIT: Field = may("limit", Named("Limit"), "Most events: 1 to 100, by default 50; clamped.");
const PRESENCE_LIMIT: Field = may("limit", Named("Limit"), "Most users: 1 to 1000, by default 200; clamped.");
const INBOX_LIMIT: Field = may("limit", Named("Limit"), "Most notifications: 1 to 100, by default 50; clamped.");
const AFTER: Field = may("after", Integer, "The first notifications after this `nseq`. Not with `before`.");
const BEFORE: Field = may("before", Integer, "The last notifications before this `nseq`. Not with `after`.");
const UNREAD_ONLY: Field = may("unread_only", Flag, "Leave out what is read. Default false.");
const TEXT_TO_SEND: Field = must("text", TEXT, "Older clients may call it `message`.");
const OWN_ID: Field =
    may("client_id", CLIENT_ID, "The client's own id of the message: sent again, it is not logged twice.");
const REPLY_TO: Field = may("reply_to", MESSAGE_ID, "The message that is answered.");
const MENTIONS: Field = may("mentions", List(&GIVEN_USER_ID), "Who is to be notified: at most 50 users.");
const META: Field = may("meta", Object, "Whatever the application adds: at most 2048 bytes, nested at most 4 deep.");
const NEW_TEXT: Field = must("text", TEXT, "The new text.");
const READ_UP_TO: Field = must("seq", Integer, "The last event that was read.");

/// Types that several events and endpoints share.
pub(super) static SHAPES: &[Shape] = &[
    Shape {
        name: "MeetingId",
        kind: Type::Matching("[A-Za-z0-9_.:-]{1,128}"),
        about: "A meeting's id, as the server says it.",
    },
    Shape {
        name: "GivenMeetingId",
        kind: Either(&[MEETING_ID, Integer]),
        about: "A meeting's id, as it may be sent: an integer stands for its decimal digits.",
    },
    Shape {
        name: "UserId",
        kind: Chars(1, 128),
        about: "A user's id: printable characters. Without tokens, a socket's id.",
    },
    Shape { name: "GivenUserId", kind: Either(&[USER_ID, Integer]), about: "A user's id, as it may be sent." },
    Shape { name: "MessageId", kind: Type::Matching("[0-9A-Za-z]{26}"), about: "A message's id: a ULID." },
    Shape { name: "ClientId", kind: Type::Matching("[A-Za-z0-9_-]{1,64}"), about: "An id that a client made up." },
    Shape {
        name: "Epoch",
        kind: Chars(8, 32),
        about: "Names one life of a meeting's log. Another one: what was logged before is lost.",
    },
    Shape { name: "UnixMs", kind: Integer, about: "Milliseconds since the Unix epoch." },
    Shape {
        name: "Limit",
        kind: Type::AnyInteger,
        about: "Any integer; one outside of its range counts as the nearest in it.",
    },
    Shape {
        name: "MessageText",
        kind: Chars(1, TEXT_MAX_CHARS),
        about: "At most 16384 bytes of UTF-8, no control characters but line feed and tab. Kept and sent verbatim: pages \
            have to show it as text, never as HTML.",
    },
    Shape {
        name: "Position",
        kind: Fields(&[
            must("epoch", Chars(0, 32), "The log's epoch."),
            must("seq", Integer, "The last event of it that the client has."),
        ]),
        about: "A place in a meeting's log.",
    },
    Shape {
        name: "ErrorObject",
        kind: Fields(&[
            must("code", Named("ErrorCode"), "What kind of refusal, for programs."),
            must("message", Text, "What was expected, for people."),
            may("retry_after_ms", Integer, "When to try again. There: an unknown code too may be retried."),
            may(
                "details",
                Fields(&[must("field", Text, "Which field was wrong."), must("expected", Text, "What it may be.")]),
                "Which field was wrong.",
            ),
            may("request_id", Text, "Over HTTP: as in the header X-Request-Id."),
        ]),
        about: "Why something was refused.",
    },
    Shape {
        name: "ConnectAuth",
        kind: Fields(&[
            may("token", Text, "A JWT. It may instead stand in the header Authorization of the handshake."),
            may("client", Chars(1, 64), "What the client calls itself."),
        ]),
        about: "The payload of the CONNECT packet: the option `auth` of `io()`.",
    },
    Shape {
        name: "ConnectRefusal",
        kind: Fields(&[
            must("message", Text, "`unauthorized`."),
            may("data", Named("ErrorObject"), "Why. Not there for a namespace that does not exist."),
        ]),
        about: "The payload of the CONNECT_ERROR packet: the event `connect_error` of the client.",
    },
    Shape { name: "Unread", kind: Fields(UNREAD), about: "What a user has not seen." },
    Shape {
        name: "UserPresence",
        kind: Fields(&[
            must("id", USER_ID, "Who."),
            must("name", Text, "What to call them."),
            must("since", MS, "Since when they are here."),
            must("devices", Integer, "With how many sockets."),
        ]),
        about: "A user who is in a meeting.",
    },
    Shape { name: "LoggedItem", kind: AnyLogged, about: "An event of a log, with its name as `event`." },
    Shape {
        name: "Notification",
        kind: Fields(NOTIFICATION),
        about: "Something that a user is told wherever they are, kept in their inbox.",
    },
    Shape {
        name: "Subject",
        kind: Fields(&[
            may("user_id", GIVEN_USER_ID, "A user."),
            may("jti", Chars(1, 256), "A token, by its claim."),
            may("sid", Chars(1, 256), "A socket's id in `/disconnect`, the token's claim in `/revoke`."),
        ]),
        about: "Exactly one of these.",
    },
    Shape {
        name: "Count",
        kind: Fields(&[must("count", Integer, "To how many things it was done.")]),
        about: "How many things something was done to.",
    },
];

/// The payload of `unread`.
const UNREAD: &[Field] = &[
    must("notifications", Integer, "Unread notifications."),
    must("meetings", Map(&Integer), "Unread messages of others, by meeting: at most 999 each, at most 50 meetings."),
    may("meetings_truncated", True, "There are more meetings."),
];

/// The payload of `notification`.
const NOTIFICATION: &[Field] = &[
    must("id", Text, "At most 64 characters."),
    must("nseq", Integer, "Its number in the user's inbox; 0 if it was sent to everybody."),
    must("kind", Text, "The type of the update, `chat.mention` or `chat.reply`."),
    may("meeting_id", MEETING_ID, "Of which meeting."),
    may("actor_id", USER_ID, "Who did it."),
    may("title", Text, "At most 200 characters."),
    may("body", Text, "At most 1000 characters."),
    may("data", Any, "Of a mention or a reply: `message_id`, `seq` and `epoch`."),
    TS,
    must("read", Flag, "Whether the user has read it; true for one that is not kept."),
];

/// What clients may send.
pub(super) static COMMANDS: &[Command] = &[
    Command {
        name: "message",
        about: "Echo: the argument comes back as `response`, to the sender alone. At most 65536 bytes, attachments included.",
        payload: Any,
        answer: &[],
        errors: &[RateLimited, TooLarge],
    },
    Command {
        name: "join_room",
        about: "Joins a meeting. The ack ends where live events begin: whoever applies its `events` and then live ones sees \
            every `seq` once. A joined meeting can be joined again. The argument may be the bare id.",
        payload: Either(&[
            Fields(&[
                MEETING,
                may("since", Named("Position"), "The last event that the client has: resume from there."),
                may("limit", Named("Limit"), "Most events: 0 to 300, by default 0, with `since` 300; clamped."),
                may("presence", Flag, "Whether the ack is to say who is here. Default false."),
            ]),
            GIVEN_MEETING_ID,
        ]),
        answer: &[
            must("meeting_id", GIVEN_MEETING_ID, "As it was sent."),
            LIFE,
            must("seq", Integer, "The log's last event; later ones come live."),
            must("first_seq", Integer, "The first event that is kept."),
            must("members", Integer, "How many users are here."),
            may("recovered", Flag, "With `since`: whether `events` is everything since."),
            must("events", List(&Named("LoggedItem")), "Ascending. Without `since` the last `limit` ones."),
            may("reason", Names(&["epoch", "window", "too_many"]), "Why nothing was recovered: read `get_history`."),
            may("presence", List(&Named("UserPresence")), "Who is here, at most 200 users."),
        ],
        errors: &[InvalidPayload, RateLimited, Forbidden, NotFound, NotJoined, RoomFull, LimitReached, Unavailable],
    },
    Command {
        name: "leave_room",
        about: "Leaves a meeting; also fine if it was not joined. The argument may be the bare id.",
        payload: Either(&[Fields(&[MEETING]), GIVEN_MEETING_ID]),
        answer: &[must("meeting_id", GIVEN_MEETING_ID, "As it was sent.")],
        errors: &[InvalidPayload, RateLimited],
    },
    Command {
        name: "chat_message",
        about: "Sends a message to everybody in a joined meeting, the sender included. Acked when it stands in the log: \
            without an answer, send again with the same `client_id`. Needs the right to write.",
        payload: Fields(&[MEETING, TEXT_TO_SEND, OWN_ID, REPLY_TO, MENTIONS, META]),
        answer: &[
            must("id", MESSAGE_ID, "The message's id."),
            SEQ,
            LIFE,
            TS,
            must("duplicate", Flag, "Whether it was sent before, with the same `client_id`."),
        ],
        errors: &[InvalidPayload, RateLimited, Forbidden, NotFound, NotJoined, Conflict, RoomClosed, Unavailable],
    },
    Command {
        name: "edit_message",
        about: "Gives a message another text: one's own for 24 hours, a host's any. Needs the right to write.",
        payload: Fields(&[MEETING, WHICH_MESSAGE, NEW_TEXT]),
        answer: &[SEQ, must("version", Integer, "1 for the first edit.")],
        errors: &[InvalidPayload, RateLimited, Forbidden, NotFound, Conflict, RoomClosed, Unavailable],
    },
    Command {
        name: "delete_message",
        about: "Deletes a message, and erases its text from the log: one's own, a host any. Again: the same answer.",
        payload: Fields(&[MEETING, WHICH_MESSAGE]),
        answer: &[SEQ],
        errors: &[InvalidPayload, RateLimited, Forbidden, NotFound, RoomClosed, Unavailable],
    },
    Command {
        name: "react",
        about: "Puts an emoji on a message of a joined meeting, or takes it back. At most 20 different ones on a message.",
        payload: Fields(&[
            MEETING,
            WHICH_MESSAGE,
            must("emoji", Chars(1, 16), "No control characters."),
            may("remove", Flag, "Whether it is taken back. Default false."),
        ]),
        answer: &[SEQ],
        errors: &[
            InvalidPayload,
            RateLimited,
            Forbidden,
            NotFound,
            NotJoined,
            Conflict,
            RoomClosed,
            LimitReached,
            Unavailable,
        ],
    },
    Command {
        name: "typing",
        about: "Tells the others in a joined meeting that one is typing. To be said again before it lapses, after 6 s; a \
            message ends it. Too often is acked and dropped.",
        payload: Fields(&[MEETING, may("active", Flag, "Default true.")]),
        answer: &[],
        errors: &[InvalidPayload, RateLimited, Forbidden, NotFound, NotJoined, RoomClosed, Unavailable],
    },
    Command {
        name: "mark_read",
        about: "Moves one's read mark forward, never back, and at most to the top.",
        payload: Fields(&[MEETING, READ_UP_TO]),
        answer: &[must("seq", Integer, "Where the mark is.")],
        errors: &[InvalidPayload, RateLimited, Forbidden, NotFound, Unavailable],
    },
    Command {
        name: "get_history",
        about: "A page of a meeting's log; without a direction, its end. Needs no join.",
        payload: Fields(&[
            MEETING,
            BEFORE_SEQ,
            AFTER_SEQ,
            PAGE_EPOCH,
            PAGE_LIMIT,
            may("kinds", List(&Named("LoggedName")), "Only these. Default all."),
        ]),
        answer: &[
            LIFE,
            must("top_seq", Integer, "The log's last event."),
            must("first_seq", Integer, "The first that is kept."),
            must("items", List(&Named("LoggedItem")), "Ascending."),
            must("has_more", Flag, "Whether there are more in that direction."),
        ],
        errors: &[InvalidPayload, RateLimited, Forbidden, NotFound, Conflict, Unavailable],
    },
    Command {
        name: "get_presence",
        about: "Who is in a meeting. Needs no join.",
        payload: Fields(&[MEETING, PRESENCE_LIMIT]),
        answer: &[
            must("count", Integer, "How many users."),
            must("users", List(&Named("UserPresence")), "Longest here first."),
            must("truncated", Flag, "Whether there are more than `users` names."),
        ],
        errors: &[InvalidPayload, RateLimited, Forbidden, NotFound, Unavailable],
    },
    Command {
        name: "notifications_get",
        about: "A page of one's inbox, which keeps 200 notifications for 30 days; without a direction, its end.",
        payload: Fields(&[AFTER, BEFORE, INBOX_LIMIT, UNREAD_ONLY]),
        answer: &[
            must("items", List(&Named("Notification")), "Ascending by `nseq`."),
            must("has_more", Flag, "Whether there are more in that direction."),
            must("unread", Integer, "Unread ones in the whole inbox."),
        ],
        errors: &[InvalidPayload, RateLimited, Unavailable],
    },
    Command {
        name: "notifications_read",
        about: "Marks notifications as read: exactly one of `ids` and `up_to`.",
        payload: Fields(&[
            may("ids", List(&Either(&[Chars(1, 64), Integer])), "At most 100."),
            may("up_to", Integer, "All up to this `nseq`."),
        ]),
        answer: &[must("unread", Integer, "Unread ones that are left.")],
        errors: &[InvalidPayload, RateLimited, Unavailable],
    },
    Command {
        name: "auth_refresh",
        about: "Goes on with a newer token of the same user.",
        payload: Fields(&[must("token", Text, "A JWT.")]),
        answer: &[must("exp", Either(&[MS, Null]), "When it expires. `null`: never, or there are no tokens here.")],
        errors: &[InvalidPayload, RateLimited, TokenInvalid, TokenExpired, Forbidden],
    },
];

/// What the server sends.
pub(super) static EVENTS: &[Event] = &[
    Event {
        name: "ready",
        about: "The first event after a CONNECT.",
        payload: &[
            must("user_id", USER_ID, "Who the client is."),
            must("name", Text, "What they are called: at most 80 characters."),
            must("sid", Text, "The socket's id."),
            must("instance", Text, "Which process serves it."),
            must("server_time", MS, "Now, by the server's clock."),
            must("protocol", Integer, "The version of all this: 1."),
            must("exp", Either(&[MS, Null]), "When the token expires. `null`: never."),
            must(
                "limits",
                Fields(&[
                    must("text", Integer, "Unicode scalars in a text."),
                    must("payload", Integer, "Bytes in a payload."),
                    must("history_page", Integer, "Events in a page of history."),
                ]),
                "What a client may send.",
            ),
            must("unread", Named("Unread"), "What was missed."),
        ],
        delivery: Delivery::Live,
    },
    Event {
        name: "response",
        about: "What `message` is answered with.",
        payload: &[must("data", Any, "The same JSON text that was sent; `null` if there was none.")],
        delivery: Delivery::Live,
    },
    Event {
        name: "chat_message",
        about: "A message.",
        payload: &[
            must("id", MESSAGE_ID, "The message's id."),
            SEQ,
            LIFE,
            WHERE,
            must("text", TEXT_OR_ERASED, "As it was sent. To be shown as text, never as HTML."),
            must("sender", USER_ID, "Who."),
            must("sender_name", Text, "What to call them."),
            TS,
            may("client_id", CLIENT_ID, "The sender's own id of it."),
            may("reply_to", MESSAGE_ID, "The message that it answers."),
            may("mentions", List(&USER_ID), "Who is meant."),
            may("meta", Object, "What the application has added."),
            DELETED,
        ],
        delivery: Delivery::Logged,
    },
    Event {
        name: "message_edited",
        about: "A message has another text.",
        payload: &[
            OF_MESSAGE,
            SEQ,
            LIFE,
            WHERE,
            must("text", TEXT_OR_ERASED, "The new text."),
            must("version", Integer, "1 for the first edit."),
            must("editor", USER_ID, "Who."),
            TS,
            DELETED,
        ],
        delivery: Delivery::Logged,
    },
    Event {
        name: "message_deleted",
        about: "A message is gone.",
        payload: &[OF_MESSAGE, SEQ, LIFE, WHERE, must("deleted_by", USER_ID, "Who."), TS],
        delivery: Delivery::Logged,
    },
    Event {
        name: "message_reaction",
        about: "An emoji was put on a message, or taken back.",
        payload: &[
            OF_MESSAGE,
            SEQ,
            LIFE,
            WHERE,
            must("user_id", USER_ID, "Who."),
            must("emoji", Text, "What."),
            must("removed", Flag, "Whether it was taken back."),
            must("count", Integer, "How many users have put it there."),
            TS,
        ],
        delivery: Delivery::Logged,
    },
    Event {
        name: "meeting_update",
        about: "Something happened to the meeting, as another service says.",
        payload: &[
            SEQ,
            LIFE,
            WHERE,
            must("type", Text, "What, such as `meeting.rescheduled`."),
            must("event_id", Text, "The update's own id."),
            may("actor_id", USER_ID, "Who did it."),
            must("data", Any, "What the other service adds, normally an object."),
            TS,
        ],
        delivery: Delivery::Logged,
    },
    Event {
        name: "notification",
        about: "Something that the user is told wherever they are, kept in the inbox.",
        payload: NOTIFICATION,
        delivery: Delivery::Live,
    },
    Event {
        name: "unread",
        about: "What the user has not seen, when it changes elsewhere. Gathered for 1 s.",
        payload: UNREAD,
        delivery: Delivery::Live,
    },
    Event {
        name: "typing",
        about: "Somebody else is typing, or has stopped.",
        payload: &[
            WHERE,
            must("user_id", USER_ID, "Who."),
            must("name", Text, "What to call them."),
            must("active", Flag, "Whether they are."),
            must("expires_in_ms", Integer, "It has ended after this time, if nothing more is said."),
        ],
        delivery: Delivery::Volatile,
    },
    Event {
        name: "presence_update",
        about: "A user has come, or has been gone for 10 s. Above 200 users only their number is told.",
        payload: &[
            WHERE,
            must("event", Names(&["join", "leave", "count"]), "What happened."),
            may(
                "user",
                Fields(&[must("id", USER_ID, "Who."), must("name", Text, "What to call them.")]),
                "Not with `count`.",
            ),
            must("count", Integer, "How many users are here now."),
            TS,
        ],
        delivery: Delivery::Volatile,
    },
    Event {
        name: "read_receipt",
        about: "A user's read mark has moved. Gathered for 1 s; above 50 users only to the user's own sockets.",
        payload: &[WHERE, must("user_id", USER_ID, "Who."), must("seq", Integer, "Up to where."), TS],
        delivery: Delivery::Volatile,
    },
    Event {
        name: "room_left",
        about: "The socket is in the meeting no more, without having asked.",
        payload: &[WHERE, must("reason", Names(&["removed", "closed", "forbidden"]), "Why.")],
        delivery: Delivery::Live,
    },
    Event {
        name: "resync",
        about: "What the client has of the meeting cannot be continued: read it again by `get_history`.",
        payload: &[
            WHERE,
            must("reason", Names(&["epoch_changed", "window_exceeded"]), "Why."),
            LIFE,
            must("top_seq", Integer, "The last event before those that come next."),
            must("first_seq", Integer, "The first that is kept."),
        ],
        delivery: Delivery::Live,
    },
    Event {
        name: "auth_expiring",
        about: "The token expires soon: send `auth_refresh`.",
        payload: &[must("exp", MS, "When."), must("in_ms", Integer, "How long that is from now.")],
        delivery: Delivery::Live,
    },
    Event {
        name: "auth_expired",
        about: "The token has expired or was revoked; the connection is closed.",
        payload: &[],
        delivery: Delivery::Live,
    },
    Event {
        name: "server_draining",
        about: "The server stops and will close the connection.",
        payload: &[
            must("reconnect_after_ms", Integer, "When to come back, from now. Different for each client."),
            must("deadline_ms", Integer, "When the connection ends at the latest, from now."),
        ],
        delivery: Delivery::Live,
    },
    Event {
        name: "chat_error",
        about: "A refusal for which no ack was asked.",
        payload: &[
            must("event", Text, "The event that was refused."),
            must("ref", Either(&[CLIENT_ID, Null]), "Its `client_id`."),
            must("error", Named("ErrorObject"), "Why."),
        ],
        delivery: Delivery::Live,
    },
];

/// Of a message that was deleted only this is left.
const TEXT_OR_ERASED: Type = Chars(0, TEXT_MAX_CHARS);

const REDIS: Type = Names(&["up", "down", "disabled"]);
const USERS: Type = List(&GIVEN_USER_ID);

/// What is answered over HTTP.
pub(super) static ENDPOINTS: &[Endpoint] = &[
    Endpoint {
        about: "Is the process alive?",
        answers: &[(
            200,
            Content::Json(Fields(&[
                must("status", Names(&["ok"]), ""),
                must("service", Text, "`chat-service`."),
                must("version", Text, ""),
                must("uptime_s", Integer, "Seconds since the start."),
                must("redis", REDIS, ""),
                must("connections", Integer, "Open sessions."),
            ])),
        )],
        ..get("/health", Auth::Nobody)
    },
    Endpoint {
        about: "Should it get new clients? 503 while it stops.",
        answers: &[(200, Content::Json(READY)), (503, Content::Json(READY))],
        ..get("/ready", Auth::Nobody)
    },
    Endpoint {
        about: "Counters for Prometheus. Also at the root; or on a port of their own.",
        answers: &[(200, Content::Other("text/plain"))],
        ..get("/metrics", Auth::Nobody)
    },
    Endpoint {
        about: "A page of a meeting's log, as `get_history`.",
        query: &[
            BEFORE_SEQ,
            AFTER_SEQ,
            PAGE_EPOCH,
            PAGE_LIMIT,
            may("kinds", Text, "Only these events, with commas between them. Default all."),
        ],
        answers: &[(200, Content::Json(Named("GetHistoryAnswer")))],
        errors: &[InvalidPayload, Forbidden, NotFound, Conflict, Unavailable],
        ..get("/meetings/{meeting_id}/messages", Auth::User)
    },
    Endpoint {
        about: "Sends a message, as `chat_message`; nobody needs to have joined. 200 if it was sent before: the message, or \
            only where it stood if it was trimmed from the log since.",
        has_key: true,
        body: Some(Fields(&[TEXT_TO_SEND, OWN_ID, REPLY_TO, MENTIONS, META])),
        answers: &[
            (201, Content::Json(Named("ChatMessageEvent"))),
            (200, Content::Json(Either(&[Named("ChatMessageEvent"), Named("ChatMessageAnswer")]))),
        ],
        errors: &[InvalidPayload, Forbidden, NotFound, Conflict, RoomClosed, Unavailable],
        ..with_body("POST", "/meetings/{meeting_id}/messages", Auth::User)
    },
    Endpoint {
        about: "Gives a message another text, as `edit_message`.",
        body: Some(Fields(&[NEW_TEXT])),
        answers: &[(200, Content::Json(Named("EditMessageAnswer")))],
        errors: &[InvalidPayload, Forbidden, NotFound, Conflict, RoomClosed, Unavailable],
        ..with_body("PATCH", "/meetings/{meeting_id}/messages/{id}", Auth::User)
    },
    Endpoint {
        about: "Deletes a message, as `delete_message`.",
        answers: &[(204, Content::Empty)],
        errors: &[InvalidPayload, Forbidden, NotFound, RoomClosed, Unavailable],
        ..with_body("DELETE", "/meetings/{meeting_id}/messages/{id}", Auth::User)
    },
    Endpoint {
        about: "Who is in a meeting, as `get_presence`.",
        query: &[PRESENCE_LIMIT],
        answers: &[(200, Content::Json(Named("GetPresenceAnswer")))],
        errors: &[InvalidPayload, Forbidden, NotFound, Unavailable],
        ..get("/meetings/{meeting_id}/presence", Auth::User)
    },
    Endpoint {
        about: "Moves one's read mark, as `mark_read`.",
        body: Some(Fields(&[READ_UP_TO])),
        answers: &[(200, Content::Json(Named("MarkReadAnswer")))],
        errors: &[InvalidPayload, Forbidden, NotFound, Unavailable],
        ..with_body("PUT", "/meetings/{meeting_id}/read", Auth::User)
    },
    Endpoint {
        about: "A page of one's inbox, as `notifications_get`.",
        query: &[AFTER, BEFORE, INBOX_LIMIT, UNREAD_ONLY],
        answers: &[(200, Content::Json(Named("NotificationsGetAnswer")))],
        errors: &[InvalidPayload, Unavailable],
        ..get("/notifications", Auth::User)
    },
    Endpoint {
        about: "Marks notifications as read, as `notifications_read`.",
        body: Some(Named("NotificationsReadPayload")),
        answers: &[(200, Content::Json(Named("NotificationsReadAnswer")))],
        errors: &[InvalidPayload, Unavailable],
        ..with_body("POST", "/notifications/read", Auth::User)
    },
    Endpoint {
        about: "What one has not seen.",
        answers: &[(200, Content::Json(Named("Unread")))],
        errors: &[Unavailable],
        ..get("/unread", Auth::User)
    },
    Endpoint {
        about: "Sends an event of the service's own: to exactly one of `meeting_id`, `user_ids` and `broadcast`. With \
            `persist` it becomes a `meeting_update` of that type, or a `notification` of that kind.",
        body: Some(Fields(&[
            may("meeting_id", GIVEN_MEETING_ID, "To those who have joined it."),
            may("user_ids", USERS, "To these: 1 to 1000."),
            may("broadcast", Flag, "To everybody. Default false."),
            must("event", Chars(1, 64), "No event that the server sends by itself, and none that Socket.IO reserves."),
            may("data", Any, "Default `null`."),
            may("persist", Flag, "Whether it is kept. Default false."),
            may("idempotency_key", Chars(1, 64), "Published again within 24 hours, nothing is done."),
        ])),
        answers: &[(
            202,
            Content::Json(Fields(&[
                must("id", Text, "The key, or an id that was made."),
                may("seq", Integer, "Its place in the meeting's log."),
                must("delivered_local", Integer, "Sockets of this process for which it was queued."),
            ])),
        )],
        errors: &[InvalidPayload, Unavailable],
        ..with_body("POST", "/publish", Auth::Service)
    },
    Endpoint {
        about: "Takes in what happened to a meeting: one object of the channel `meeting_updates`. It needs a meeting, \
            recipients or `broadcast`. Further names of these fields are tolerated.",
        body: Some(Fields(&[
            may("v", Integer, "1."),
            may(
                "id",
                Chars(1, 64),
                "The same if it is sent again. Default: derived from the bytes, and known for 10 s.",
            ),
            may("type", Type::Matching("[a-z0-9_.-]{1,64}"), "What happened. Default `meeting.updated`."),
            may("meeting_id", GIVEN_MEETING_ID, "To which meeting."),
            may("actor_id", GIVEN_USER_ID, "Who did it; gets no notification."),
            may("recipients", USERS, "Who is to be notified: at most 1000."),
            may(
                "participants",
                List(&Either(&[GIVEN_USER_ID, Object])),
                "Who was added, invited or removed: ids, or \
                objects with `user_id` or `id`; at most 1000. Without `recipients` these are notified.",
            ),
            may(
                "exclude",
                USERS,
                "Who is not to be notified: at most 1000. Empty: recipients hear of their own acts too.",
            ),
            may("to", Names(&["room", "users", "both"]), "Where it goes. Default `both`."),
            may("title", Chars(0, 200), "The notification's title."),
            may("body", Chars(0, 1000), "The notification's text."),
            may("data", Object, "Passed on."),
            may("starts_at", MOMENT, "When the meeting begins; sets its reminders."),
            may("persist", Flag, "Whether notifications are kept for those who are away. Default true."),
            may("ttl_ms", Integer, "How long notifications are worth keeping."),
            may("ts", MS, "When it happened. Default now."),
            may(
                "broadcast",
                Flag,
                "Without a meeting and recipients: notify everybody who is connected. Default false.",
            ),
        ])),
        answers: &[(
            202,
            Content::Json(Fields(&[
                must("id", Text, "The update's own id, or the one that was derived."),
                must("duplicate", Flag, "Whether it was known already, and nothing was done."),
            ])),
        )],
        errors: &[InvalidPayload, TooLarge, RoomClosed, Unavailable],
        ..with_body("POST", "/updates", Auth::Service)
    },
    Endpoint {
        about: "Closes connections, whose clients may come back. Counts sockets.",
        body: Some(Named("Subject")),
        answers: COUNTED,
        errors: &[InvalidPayload],
        ..with_body("POST", "/disconnect", Auth::Service)
    },
    Endpoint {
        about: "Closes the connections of tokens, and keeps these out for 24 hours. Counts sockets.",
        body: Some(Fields(&[
            may("type", Names(&["revoke"]), ""),
            may("user_id", GIVEN_USER_ID, "All tokens of a user. Exactly one of this, `jti` and `sid`."),
            may("jti", Chars(1, 256), "A token, by its claim."),
            may("sid", Chars(1, 256), "A login session, by the token's claim."),
            may("before", MS, "Only tokens issued up to then. Default: for a user now, else all."),
        ])),
        answers: COUNTED,
        errors: &[InvalidPayload],
        ..with_body("POST", "/revoke", Auth::Service)
    },
    Endpoint {
        about: "What the process holds.",
        answers: &[(
            200,
            Content::Json(Fields(&[
                must("version", Text, ""),
                must("instance", Text, "Names the process."),
                must("uptime_s", Integer, ""),
                must("connections", Integer, "TCP."),
                must("sessions", Integer, "Engine.IO."),
                must("sockets", Integer, "Socket.IO."),
                must("rooms", Integer, "Meetings that somebody is in."),
                must("users", Integer, "Users who are connected."),
                must("outbox_bytes", Integer, "Waiting for all clients."),
                must("outbox_bytes_max", Integer, "Waiting for the slowest client."),
                must("redis", REDIS, ""),
                must("pending_publishes", Integer, ""),
                must(
                    "store",
                    Fields(&[
                        must("bytes", Integer, "An estimate."),
                        must("meetings", Integer, "With a log."),
                        must("users", Integer, "With an inbox or a mark."),
                        must("reminders", Integer, "Waiting."),
                    ]),
                    "What is kept.",
                ),
            ])),
        )],
        ..get("/stats", Auth::Service)
    },
    Endpoint {
        about: "Makes a meeting read-only, and puts everybody out of it. Counts sockets.",
        answers: COUNTED,
        errors: &[InvalidPayload, Unavailable],
        ..with_body("POST", "/meetings/{meeting_id}/close", Auth::Service)
    },
    Endpoint {
        about: "Forgets a meeting, and puts everybody out of it. Counts events.",
        answers: COUNTED,
        errors: &[InvalidPayload, Unavailable],
        ..with_body("DELETE", "/meetings/{meeting_id}", Auth::Service)
    },
    Endpoint {
        about: "Forgets a user's inbox and read marks. Counts both.",
        answers: COUNTED,
        errors: &[InvalidPayload, Unavailable],
        ..with_body("DELETE", "/users/{user_id}", Auth::Service)
    },
    Endpoint {
        about: "The events, as an AsyncAPI document. With DOCS=1.",
        answers: &[(200, Content::Json(Object))],
        ..get("/asyncapi.json", Auth::Nobody)
    },
    Endpoint {
        about: "This document. With DOCS=1.",
        answers: &[(200, Content::Json(Object))],
        ..get("/openapi.json", Auth::Nobody)
    },
    Endpoint {
        about: "The events, as types for TypeScript. With DOCS=1.",
        answers: &[(200, Content::Other("text/plain"))],
        ..get("/events.d.ts", Auth::Nobody)
    },
    Endpoint {
        about: "A page to try the chat with. In development.",
        answers: &[(200, Content::Other("text/html"))],
        ..get("/demo", Auth::Nobody)
    },
];

const COUNTED: &[(u16, Content)] = &[(200, Content::Json(Named("Count")))];
const READY: Type = Fields(&[
    must("status", Names(&["ready", "draining", "degraded"]), ""),
    must("checks", Object, "Each part, and whether it is well."),
]);
const MOMENT: Type = Either(&[Integer, Text]);

const fn get(path: &'static str, auth: Auth) -> Endpoint {
    with_body("GET", path, auth)
}

const fn with_body(method: &'static str, path: &'static str, auth: Auth) -> Endpoint {
    Endpoint { method, path, auth, about: "", query: &[], has_key: false, body: None, answers: &[], errors: &[] }
}

// The texts above say these numbers.
const _: () = assert!(TEXT_MAX_BYTES == 16_384 && TEXT_MAX_CHARS == 4000);
