//! What Node and Python servers on the same Redis ask of this one: it is a full member of their cluster.

use std::{iter, sync::Arc};

use serde::Serialize;

use crate::{
    adapter::{
        classic::{Ask, RemoteSocket, Reply, Request, Response, Selection, Sockets},
        python::Method,
    },
    chat::{
        Chat,
        event::to_json,
        service::{NAMESPACE, client},
    },
    cluster::{Answers, Emit},
    socket::Socket,
    types::CloseReason,
};

/// What is told of a socket's handshake: nothing that could be secret.
#[derive(Serialize)]
struct RemoteHandshake {
    headers: Empty,
    query: Empty,
    auth: Empty,
    address: &'static str,
    url: &'static str,
    xdomain: bool,
    secure: bool,
}

#[derive(Serialize)]
struct Empty {}

/// What is kept with a socket.
#[derive(Serialize)]
struct RemoteData<'a> {
    user_id: &'a str,
    name: &'a str,
}

impl Chat {
    /// Does what another server asks for.
    pub(super) fn answer_server(self: &Arc<Self>, request: Request) {
        let Some(cluster) = &self.cluster else { return };
        let respond = |request_id: String, reply: Reply| cluster.respond(&Response { request_id, reply });
        match request.ask {
            Ask::Sockets { request_id, rooms } => {
                let sockets = self.select(&Selection { rooms, except: Vec::new() });
                let ids = sockets.iter().map(|socket| socket.id().to_string()).collect();
                respond(request_id, Reply::Sockets(ids));
            }
            Ask::Rooms { request_id } => {
                let mut rooms: Vec<String> = self.sockets().iter().flat_map(|socket| self.rooms_of(socket)).collect();
                rooms.sort_unstable();
                rooms.dedup();
                respond(request_id, Reply::Rooms(rooms));
            }
            Ask::Join { sockets, rooms } => {
                let (sockets, asked) = self.asked(&sockets);
                self.join_plain(&sockets, &rooms);
                self.done(&sockets, asked);
            }
            Ask::Leave { sockets, rooms } => {
                let (sockets, asked) = self.asked(&sockets);
                self.leave_plain(&sockets, &rooms);
                self.done(&sockets, asked);
            }
            Ask::Disconnect { sockets, close } => {
                let (sockets, asked) = self.asked(&sockets);
                for socket in &sockets {
                    if close {
                        self.dismiss(socket, CloseReason::ServerClose);
                    } else {
                        socket.disconnect();
                    }
                }
                self.done(&sockets, asked);
            }
            Ask::Fetch { request_id, sockets } => {
                let sockets = self.select(&sockets);
                let fetched = sockets.iter().map(|socket| self.describe(socket)).collect();
                respond(request_id, Reply::Fetched(fetched));
            }
            // There is nobody here to be told, but the asker waits for all.
            Ask::Emit { request_id: Some(request_id), .. } => {
                respond(
                    request_id,
                    Reply::Emitted(crate::adapter::Values { json: "null".into(), attachments: vec![] }),
                );
            }
            Ask::Emit { request_id: None, .. } => {}
            Ask::Broadcast { request_id, broadcast } => {
                let owned = |names: Vec<_>| names.into_iter().map(std::borrow::Cow::into_owned).collect();
                if broadcast.namespace == NAMESPACE {
                    self.pass_on(Emit {
                        rooms: owned(broadcast.rooms),
                        except: owned(broadcast.except),
                        event: broadcast.event,
                        is_volatile: false,
                        ack: Some(cluster.answers(request_id, broadcast.flags.timeout_ms)),
                    });
                }
            }
        }
    }

    /// Does what a Python process asks for beside emitting.
    pub(super) fn do_for_python(self: &Arc<Self>, method: Method<'_>) {
        let one = |sid: &str| {
            let sid = iter::once(sid.to_owned()).collect();
            let mut sockets = self.select(&Selection { rooms: sid, except: Vec::new() });
            sockets.retain(|socket| {
                matches!(&method, Method::Disconnect { sid } | Method::EnterRoom { sid, .. }
                | Method::LeaveRoom { sid, .. } if socket.id().as_str() == sid)
            });
            sockets
        };
        match &method {
            Method::Disconnect { sid } => one(sid).iter().for_each(Socket::disconnect),
            Method::EnterRoom { sid, room } => self.join_plain(&one(sid), &[room.to_string()]),
            Method::LeaveRoom { sid, room } => self.leave_plain(&one(sid), &[room.to_string()]),
            Method::CloseRoom { room } => self.close_plain(room),
            // Emits come another way, and nothing here has asked for a callback.
            Method::Emit(_) | Method::Callback { .. } => {}
        }
    }

    /// Whom a request is about, and the id of one that is answered by whoever has its socket.
    fn asked(&self, sockets: &Sockets) -> (Vec<Socket>, Option<String>) {
        match sockets {
            Sockets::In(selection) => (self.select(selection), None),
            Sockets::One { sid, request_id } => {
                let mut sockets = self.sockets();
                sockets.retain(|socket| socket.id().as_str() == sid);
                (sockets, request_id.clone())
            }
        }
    }

    fn done(&self, sockets: &[Socket], asked: Option<String>) {
        if let (Some(request_id), Some(cluster), false) = (asked, &self.cluster, sockets.is_empty()) {
            cluster.respond(&Response { request_id, reply: Reply::Done });
        }
    }

    fn describe(&self, socket: &Socket) -> RemoteSocket {
        let identity = client(socket).map(|client| client.identity());
        let (user_id, name) = identity.as_ref().map_or(("", ""), |identity| (&identity.user_id, &identity.name));
        let handshake = RemoteHandshake {
            headers: Empty {},
            query: Empty {},
            auth: Empty {},
            address: "",
            url: "/socket.io/",
            xdomain: false,
            secure: false,
        };
        RemoteSocket {
            id: socket.id().to_string(),
            handshake: to_json(&handshake),
            rooms: self.rooms_of(socket),
            data: to_json(&RemoteData { user_id, name }),
        }
    }

    /// Emits an event that clients are to answer.
    pub(super) fn ask_clients(self: &Arc<Self>, emit: &Emit, answers: &Answers) {
        let Some(cluster) = &self.cluster else { return };
        let sockets = self.select(&Selection { rooms: emit.rooms.clone(), except: emit.except.clone() });
        cluster.will_answer(answers, sockets.len());
        let args = &emit.event.args;
        for socket in sockets {
            let (cluster, answers) = (Arc::clone(cluster), answers.clone());
            let deadline = answers.deadline();
            socket.emit_binary_with_ack(&emit.event.name, &args.json, &args.attachments, deadline, move |answer| {
                if let Ok(answer) = answer {
                    let first = answer.args.first_str().unwrap_or("null");
                    cluster.answer(&answers, first, answer.args.as_str(), answer.attachments);
                }
            });
        }
    }
}
