//! `skytale._core`, the compiled half of the Python package: the SDK's nouns, translated.
//!
//! Each call that may take time is an [`operation::Operation`], which is either awaited or waited
//! for, so that it exists once for `skytale` and `skytale.sync`. What a caller sees, and every check
//! of what it passes, is typed Python in the folder `skytale`.

mod agent;
mod channel;
mod errors;
mod events;
mod inbox;
mod mesh;
mod message;
mod native;
mod network;
mod operation;
mod runtime;
mod stillness;

/// The compiled half of `skytale`. Use `skytale` and `skytale.sync`, which are typed and documented.
#[pyo3::pymodule(gil_used = false)]
mod _core {
    #[pymodule_export]
    use super::{
        agent::Agent,
        channel::Channel,
        events::Events,
        inbox::Inbox,
        mesh::Mesh,
        message::Message,
        operation::Operation,
        runtime::shutdown,
        stillness::{go_on, hold_still},
    };
}
