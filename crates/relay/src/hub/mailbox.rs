//! Welcomes: pushed when they are stored, kept until the recipient has dealt with them.

use bytes::Bytes;
use skytale_wire::{
    frame::{FRAME_BYTES_MAX, ToAgent, Welcome, Welcomed, decode},
    id::AgentId,
};

use super::{Asking, Conn, Hub, Output, Query, ledger::Effect, send};
use crate::archive::Write;

impl Hub {
    /// A commit is durable: recipients that are here need not ask.
    pub(super) fn push_welcomes(
        &mut self,
        welcomes: Vec<(AgentId, Welcome)>,
        out: &mut Vec<Output>,
    ) {
        for (agent, welcome) in welcomes {
            let Some(conn) = self.lines.get(&agent).copied() else {
                continue;
            };
            let Some(connection) = self.conns.get_mut(&conn) else {
                continue;
            };
            if connection.full_since.is_some() {
                connection.owes_welcomes = true;
            } else {
                send(conn, ToAgent::Welcome(welcome), out);
            }
        }
    }

    pub(super) fn take_welcome(&mut self, who: Asking, out: &mut Vec<Output>) {
        let Some(connection) = self.conns.get_mut(&who.conn) else {
            return;
        };
        if connection.full_since.is_some() {
            connection.owes_welcomes = true;
            return;
        }
        out.push(Output::Read {
            conn: who.conn,
            query: Query::Welcomes { agent: who.agent },
        });
    }

    pub(super) fn welcomes_read(&self, conn: Conn, frames: &[Bytes], out: &mut Vec<Output>) {
        if !self.conns.contains_key(&conn) {
            return;
        }
        for frame in frames {
            // One that cannot be read would have been written by another version: the others
            // are still worth sending.
            if let Ok(welcome) = decode::<Welcome>(frame, FRAME_BYTES_MAX) {
                send(conn, ToAgent::Welcome(welcome), out);
            }
        }
    }

    pub(super) fn welcomed(&mut self, who: Asking, frame: &Welcomed, out: &mut Vec<Output>) {
        if self.check_writable().is_err() {
            return; // It will be sent again, and welcomed again.
        }
        let write = Write::DropWelcome {
            agent: who.agent,
            channel: frame.channel,
            id: frame.id,
        };
        self.ledger.write(write, Effect::Nothing, None, out);
    }
}
