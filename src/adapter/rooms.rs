//! How meetings are called among the rooms of other servers, where users and sockets are rooms too.

use std::borrow::Cow;

/// What stands in front of a user's id.
pub const USER: &str = "user:";
/// In front of a meeting whose own name could be taken for a user's room.
const MEETING: &str = "meeting:";

/// The room of a meeting: of its own name, nearly always.
pub fn room_of_meeting(meeting: &str) -> Cow<'_, str> {
    if meeting.starts_with(USER) || meeting.starts_with(MEETING) {
        Cow::Owned(format!("{MEETING}{meeting}"))
    } else {
        Cow::Borrowed(meeting)
    }
}

/// The meeting whose room this is; `None` if it is a user's.
pub fn meeting_of_room(room: &str) -> Option<&str> {
    if room.starts_with(USER) { None } else { Some(room.strip_prefix(MEETING).unwrap_or(room)) }
}

/// The room of a user.
pub fn room_of_user(user: &str) -> String {
    format!("{USER}{user}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_meeting_has_the_room_of_a_user_or_of_another_meeting() {
        let cases = [
            ("42", "42"),
            ("a#b", "a#b"),
            ("user", "user"),
            ("user:42", "meeting:user:42"),
            ("meeting:user:42", "meeting:meeting:user:42"),
            ("meeting:42", "meeting:meeting:42"),
        ];
        for (meeting, room) in cases {
            assert_eq!(room_of_meeting(meeting), room);
            assert_eq!(meeting_of_room(room), Some(meeting));
        }
        assert_eq!(meeting_of_room(&room_of_user("42")), None);
    }
}
