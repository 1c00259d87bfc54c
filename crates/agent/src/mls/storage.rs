//! Where `OpenMLS` keeps its groups and keys: rows of one table, inside a transaction of
//! the caller, behind an overlay that lives as long as that transaction.
//!
//! Two rules make this file:
//! - *No transaction, no group.* Receiving a commit is a dozen writes, and a group that
//!   saw only some of them is lost. So nothing here opens, commits or rolls back a
//!   transaction: the caller's transaction also holds his cursor and his outbox.
//! - *A row is written once a transaction.* `OpenMLS` writes the message secrets again for
//!   every message. Writes gather in the overlay and reach the table in
//!   [`Storage::flush`]. A storage that is dropped without it loses them, on purpose: it
//!   goes together with a rollback.
//!
//! A group can have a *shadow*: a second set of rows under the same id, reached through
//! [`Storage::shadow`]. An external commit overwrites the stored group the moment it is
//! built, long before the relay has accepted it; in a shadow it harms nobody.
//!
//! What is left out: the meaning of the entities (`OpenMLS`'s), encryption at rest (the
//! connection's), the table's schema (`migrations/0001_mls.sql`).

use std::{cell::RefCell, collections::BTreeMap, fmt, io, ops::RangeInclusive, rc::Rc};

use openmls::group::{GroupEpoch, GroupId};
use openmls_traits::storage::{CURRENT_VERSION, StorageProvider, traits};
use rmp_serde::config::BytesMode;
use rusqlite::{Connection, OptionalExtension as _, named_params};
use serde::{Serialize, de::DeserializeOwned};
use zeroize::Zeroizing;

/// `OpenMLS`'s store for one transaction: the table, and the overlay of what will change.
pub struct Storage<'tx> {
    connection: &'tx Connection,
    overlay: Rc<RefCell<Overlay>>,
    space: Space,
}

/// Why a row could not be read or written. After any of these the transaction must be
/// rolled back and the groups in memory dropped: they may be ahead of the store.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StorageError {
    /// `SQLite` refused; its error says whether to try again.
    #[error("the store could not be read or written")]
    Database(#[from] rusqlite::Error),
    /// A stored row is not what this version writes: the store is damaged, or newer.
    /// The codec's own error is dropped, for it may quote what the row holds.
    #[error("a stored MLS row of kind {kind} cannot be decoded")]
    Damaged {
        /// The row's `kind` column.
        kind: u8,
    },
    /// An entity or its key has no `MessagePack` form. A bug of ours or of the library.
    #[error("an MLS entity cannot be encoded")]
    Unencodable,
}

impl<'tx> Storage<'tx> {
    /// A store over the caller's open transaction, with nothing in its overlay.
    pub fn new(connection: &'tx Connection) -> Self {
        Self {
            connection,
            overlay: Rc::default(),
            space: Space::Live,
        }
    }

    /// The same store and the same overlay, with every group's rows in its shadow.
    /// Keys that belong to no group (`KeyPackages`, PSKs) are shared with the live side.
    #[must_use]
    pub fn shadow(&self) -> Self {
        Self {
            connection: self.connection,
            overlay: Rc::clone(&self.overlay),
            space: Space::Shadow,
        }
    }

    /// Puts the group's shadow in the place of the live group, of which nothing stays.
    /// Says whether there was a shadow; without one the live group is left alone.
    pub fn promote(&self, group_id: &GroupId) -> Result<bool, StorageError> {
        let group_id = group_id.as_slice();
        let shadow = self.rows(group_id, Space::Shadow, EVERY_KIND)?;
        if shadow.is_empty() {
            return Ok(false);
        }
        self.delete_rows(group_id, Space::Live)?;
        for row in shadow {
            let value = self.read(&row, |bytes| Ok(Zeroizing::new(bytes.to_vec())))?;
            self.change(row.clone(), None);
            let live = RowKey {
                space: Space::Live,
                ..row
            };
            self.change(live, value);
        }
        Ok(true)
    }

    /// Deletes the group's shadow; the live group is left alone.
    pub fn discard(&self, group_id: &GroupId) -> Result<(), StorageError> {
        self.delete_rows(group_id.as_slice(), Space::Shadow)
    }

    /// Deletes every row of the group, live and shadow. `OpenMLS`'s own deletion names the
    /// rows it remembers one by one; after this one there is none, remembered or not.
    pub fn delete_group(&self, group_id: &GroupId) -> Result<(), StorageError> {
        self.delete_rows(group_id.as_slice(), Space::Live)?;
        self.delete_rows(group_id.as_slice(), Space::Shadow)
    }

    /// Under which name the private half of the KeyPackage with this reference is kept: the `key`
    /// column of its row.
    pub(crate) fn name_of_key_package(reference: &impl Serialize) -> Result<Vec<u8>, StorageError> {
        RowKey::of_agent(Kind::KeyPackage, reference).map(|row| row.key)
    }

    /// Deletes a KeyPackage's private half.
    pub(crate) fn forget_key_package(&self, name: &[u8]) {
        self.delete(RowKey {
            group_id: Vec::new(),
            space: Space::Agent,
            kind: Kind::KeyPackage as u8,
            key: name.to_vec(),
        });
    }

    /// Writes every changed row to the table, each once, and empties the overlay. Says
    /// how many rows that were. To be called last before the transaction commits.
    pub fn flush(&self) -> Result<usize, StorageError> {
        let overlay = self.overlay.take();
        let mut write = self.connection.prepare_cached(
            "INSERT INTO mls_entities (group_id, space, kind, key, value)
             VALUES (:group_id, :space, :kind, :key, :value)
             ON CONFLICT DO UPDATE SET value = excluded.value",
        )?;
        let mut delete = self.connection.prepare_cached(
            "DELETE FROM mls_entities
             WHERE group_id = :group_id AND space = :space AND kind = :kind AND key = :key",
        )?;
        for (row, value) in &overlay {
            let RowKey {
                group_id,
                space,
                kind,
                key,
            } = row;
            let space = *space as u8;
            match value {
                Some(value) => write.execute(named_params! {
                    ":group_id": group_id, ":space": space, ":kind": kind, ":key": key,
                    ":value": value.as_slice(),
                })?,
                None => delete.execute(named_params! {
                    ":group_id": group_id, ":space": space, ":kind": kind, ":key": key,
                })?,
            };
        }
        Ok(overlay.len())
    }

    // Rows: the overlay first, then the table.

    fn get<T: DeserializeOwned>(&self, row: &RowKey) -> Result<Option<T>, StorageError> {
        self.read(row, |bytes| decode(row.kind, bytes))
    }

    fn put<T: Serialize + ?Sized>(&self, row: RowKey, value: &T) -> Result<(), StorageError> {
        let value = encode(value)?;
        self.change(row, Some(value));
        Ok(())
    }

    fn delete(&self, row: RowKey) {
        self.change(row, None);
    }

    fn change(&self, row: RowKey, value: Option<Zeroizing<Vec<u8>>>) {
        self.overlay.borrow_mut().insert(row, value);
    }

    /// Lets `look` see the row's bytes where they lie, in the overlay or in `SQLite`'s own
    /// page: no copy of a secret is made that somebody would have to wipe.
    fn read<T>(
        &self,
        row: &RowKey,
        look: impl FnOnce(&[u8]) -> Result<T, StorageError>,
    ) -> Result<Option<T>, StorageError> {
        if let Some(value) = self.overlay.borrow().get(row) {
            return value.as_ref().map(|bytes| look(bytes)).transpose();
        }
        let mut statement = self.connection.prepare_cached(
            "SELECT value FROM mls_entities
             WHERE group_id = :group_id AND space = :space AND kind = :kind AND key = :key",
        )?;
        statement
            .query_row(
                named_params! {
                    ":group_id": row.group_id, ":space": row.space as u8,
                    ":kind": row.kind, ":key": row.key,
                },
                |found| Ok(look(found.get_ref(0)?.as_blob()?)),
            )
            .optional()?
            .transpose()
    }

    /// The group's rows of these kinds that exist once the overlay is flushed, in order.
    fn rows(
        &self,
        group_id: &[u8],
        space: Space,
        kinds: RangeInclusive<u8>,
    ) -> Result<Vec<RowKey>, StorageError> {
        let mut statement = self.connection.prepare_cached(
            "SELECT kind, key FROM mls_entities
             WHERE group_id = :group_id AND space = :space AND kind BETWEEN :first AND :last",
        )?;
        let stored = statement.query_map(
            named_params! {
                ":group_id": group_id, ":space": space as u8,
                ":first": kinds.start(), ":last": kinds.end(),
            },
            |found| {
                Ok(RowKey {
                    group_id: group_id.to_vec(),
                    space,
                    kind: found.get(0)?,
                    key: found.get(1)?,
                })
            },
        )?;
        let overlay = self.overlay.borrow();
        let mut rows = stored
            .filter(|row| !matches!(row, Ok(row) if overlay.contains_key(row)))
            .collect::<Result<Vec<_>, _>>()?;
        let first = RowKey {
            group_id: group_id.to_vec(),
            space,
            kind: *kinds.start(),
            key: Vec::new(),
        };
        let written = overlay
            .range(first..)
            .take_while(|(row, _)| {
                row.group_id == group_id && row.space == space && kinds.contains(&row.kind)
            })
            .filter(|(_, value)| value.is_some());
        rows.extend(written.map(|(row, _)| row.clone()));
        rows.sort();
        Ok(rows)
    }

    fn delete_rows(&self, group_id: &[u8], space: Space) -> Result<(), StorageError> {
        for row in self.rows(group_id, space, EVERY_KIND)? {
            self.delete(row);
        }
        Ok(())
    }

    // Names of rows.

    /// The row of an entity that a group has once.
    fn of_group(&self, kind: Kind, group_id: &impl Serialize) -> Result<RowKey, StorageError> {
        Ok(RowKey {
            group_id: raw_group_id(group_id)?,
            space: self.space,
            kind: kind as u8,
            key: Vec::new(),
        })
    }

    /// All rows of a kind that a group has in numbers.
    fn list(&self, kind: Kind, group_id: &impl Serialize) -> Result<Vec<RowKey>, StorageError> {
        let kind = kind as u8;
        self.rows(&raw_group_id(group_id)?, self.space, kind..=kind)
    }

    fn delete_list(&self, kind: Kind, group_id: &impl Serialize) -> Result<(), StorageError> {
        for row in self.list(kind, group_id)? {
            self.delete(row);
        }
        Ok(())
    }

    /// The key under which the next item of a list goes, `rest` behind its number.
    fn next_in_list(
        &self,
        kind: Kind,
        group_id: &impl Serialize,
        list: &[RowKey],
        rest: &[u8],
    ) -> Result<RowKey, StorageError> {
        let number = match list.last() {
            None => 0,
            Some(last) => last.number()? + 1,
        };
        Ok(RowKey {
            key: [&number.to_be_bytes(), rest].concat(),
            ..self.of_group(kind, group_id)?
        })
    }

    fn epoch_key_pairs(
        &self,
        group_id: &impl Serialize,
        epoch: &impl Serialize,
        leaf_index: u32,
    ) -> Result<RowKey, StorageError> {
        let epoch: GroupEpoch = decode(Kind::EpochKeyPairs as u8, &encode(epoch)?)?;
        let epoch = epoch.as_u64().to_be_bytes();
        Ok(RowKey {
            key: [&epoch[..], &leaf_index.to_be_bytes()].concat(),
            ..self.of_group(Kind::EpochKeyPairs, group_id)?
        })
    }
}

impl fmt::Debug for Storage<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Storage")
            .field("space", &self.space)
            .field("changed_rows", &self.overlay.borrow().len())
            .finish_non_exhaustive()
    }
}

type Overlay = BTreeMap<RowKey, Option<Zeroizing<Vec<u8>>>>;

/// A row's primary key. It holds nothing secret: ids, numbers, public keys.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
struct RowKey {
    group_id: Vec<u8>,
    space: Space,
    kind: u8,
    key: Vec<u8>,
}

impl RowKey {
    /// The row of a key that belongs to the agent and to no group.
    fn of_agent(kind: Kind, key: &impl Serialize) -> Result<Self, StorageError> {
        Ok(Self {
            group_id: Vec::new(),
            space: Space::Agent,
            kind: kind as u8,
            key: encode(key)?.to_vec(),
        })
    }

    /// The place of a list's item in its list: the first bytes of its key.
    fn number(&self) -> Result<u64, StorageError> {
        match self.key.first_chunk() {
            Some(number) => Ok(u64::from_be_bytes(*number)),
            None => Err(StorageError::Damaged { kind: self.kind }),
        }
    }

    /// What stands behind the number in the key of a list's item.
    fn rest(&self) -> Result<&[u8], StorageError> {
        match self.key.split_at_checked(size_of::<u64>()) {
            Some((_, rest)) => Ok(rest),
            None => Err(StorageError::Damaged { kind: self.kind }),
        }
    }
}

/// The `space` column. Stored: numbers are never given anew.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
enum Space {
    /// Apart from the groups' rows, so that a group whose id is empty (MLS allows it, and
    /// the id comes from outside) cannot be mistaken for the agent's own keys.
    Agent = 0,
    Live = 1,
    Shadow = 2,
}

/// The `kind` column. Stored: numbers are never given anew.
#[derive(Debug, Clone, Copy)]
#[repr(u8)]
enum Kind {
    JoinConfig = 1,
    OwnLeafNode = 2,
    Proposal = 3,
    Tree = 4,
    InterimTranscriptHash = 5,
    GroupContext = 6,
    ConfirmationTag = 7,
    GroupState = 8,
    MessageSecrets = 9,
    ResumptionPsks = 10,
    OwnLeafIndex = 11,
    EpochSecrets = 12,
    EpochKeyPairs = 13,
    SignatureKeyPair = 32,
    EncryptionKeyPair = 33,
    KeyPackage = 34,
    Psk = 35,
}

const EVERY_KIND: RangeInclusive<u8> = 0..=u8::MAX;

/// A group id as its own bytes, not as the codec's rendering of `OpenMLS`'s struct: the
/// column must stay findable when either of them changes. The trait offers nothing but
/// `Serialize`, hence the way there and back.
fn raw_group_id(group_id: &impl Serialize) -> Result<Vec<u8>, StorageError> {
    let encoded = encode(group_id)?;
    let group_id: GroupId =
        rmp_serde::from_slice(&encoded).map_err(|_| StorageError::Unencodable)?;
    Ok(group_id.to_vec())
}

/// `MessagePack` with field names: `OpenMLS` adds fields between versions, and some of its
/// types need a format that describes itself.
///
/// Keys, hashes and signatures are vectors of bytes to serde, which by itself writes each byte as
/// a number of its own; with a tree of a hundred that was the larger part of a step's own cost.
/// What was written in that way is read as well.
fn encode<T: Serialize + ?Sized>(value: &T) -> Result<Zeroizing<Vec<u8>>, StorageError> {
    let mut buffer = WipedBuffer::default();
    let mut serializer = rmp_serde::Serializer::new(&mut buffer)
        .with_struct_map()
        .with_bytes(BytesMode::ForceIterables);
    value
        .serialize(&mut serializer)
        .map_err(|_| StorageError::Unencodable)?;
    Ok(buffer.bytes)
}

fn decode<T: DeserializeOwned>(kind: u8, bytes: &[u8]) -> Result<T, StorageError> {
    rmp_serde::from_slice(bytes).map_err(|_| StorageError::Damaged { kind })
}

/// A growing buffer that leaves no bytes behind. A `Vec` that grows frees its old block
/// as it is, and `Zeroizing` wipes only the last one.
#[derive(Default)]
struct WipedBuffer {
    bytes: Zeroizing<Vec<u8>>,
}

impl io::Write for WipedBuffer {
    #[inline]
    fn write(&mut self, part: &[u8]) -> io::Result<usize> {
        let needed = self.bytes.len() + part.len();
        if needed > self.bytes.capacity() {
            let roomy = needed.next_power_of_two().max(BUFFER_MIN);
            let mut grown = Zeroizing::new(Vec::with_capacity(roomy));
            grown.extend_from_slice(&self.bytes);
            self.bytes = grown;
        }
        self.bytes.extend_from_slice(part);
        Ok(part.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// First size of an encoding buffer; most entities are smaller, trees are not.
const BUFFER_MIN: usize = 1024;

/// What `OpenMLS` asks for, entity by entity. Everything that decides stands above.
impl StorageProvider<CURRENT_VERSION> for Storage<'_> {
    type Error = StorageError;
    // Entities that a group has once.

    fn write_mls_join_config<
        G: traits::GroupId<CURRENT_VERSION>,
        E: traits::MlsGroupJoinConfig<CURRENT_VERSION>,
    >(
        &self,
        group_id: &G,
        entity: &E,
    ) -> Result<(), StorageError> {
        self.put(self.of_group(Kind::JoinConfig, group_id)?, entity)
    }

    fn mls_group_join_config<
        G: traits::GroupId<CURRENT_VERSION>,
        E: traits::MlsGroupJoinConfig<CURRENT_VERSION>,
    >(
        &self,
        group_id: &G,
    ) -> Result<Option<E>, StorageError> {
        self.get(&self.of_group(Kind::JoinConfig, group_id)?)
    }

    fn delete_group_config<G: traits::GroupId<CURRENT_VERSION>>(
        &self,
        group_id: &G,
    ) -> Result<(), StorageError> {
        self.delete(self.of_group(Kind::JoinConfig, group_id)?);
        Ok(())
    }

    fn write_tree<G: traits::GroupId<CURRENT_VERSION>, E: traits::TreeSync<CURRENT_VERSION>>(
        &self,
        group_id: &G,
        entity: &E,
    ) -> Result<(), StorageError> {
        self.put(self.of_group(Kind::Tree, group_id)?, entity)
    }

    fn tree<G: traits::GroupId<CURRENT_VERSION>, E: traits::TreeSync<CURRENT_VERSION>>(
        &self,
        group_id: &G,
    ) -> Result<Option<E>, StorageError> {
        self.get(&self.of_group(Kind::Tree, group_id)?)
    }

    fn delete_tree<G: traits::GroupId<CURRENT_VERSION>>(
        &self,
        group_id: &G,
    ) -> Result<(), StorageError> {
        self.delete(self.of_group(Kind::Tree, group_id)?);
        Ok(())
    }

    fn write_interim_transcript_hash<
        G: traits::GroupId<CURRENT_VERSION>,
        E: traits::InterimTranscriptHash<CURRENT_VERSION>,
    >(
        &self,
        group_id: &G,
        entity: &E,
    ) -> Result<(), StorageError> {
        self.put(
            self.of_group(Kind::InterimTranscriptHash, group_id)?,
            entity,
        )
    }

    fn interim_transcript_hash<
        G: traits::GroupId<CURRENT_VERSION>,
        E: traits::InterimTranscriptHash<CURRENT_VERSION>,
    >(
        &self,
        group_id: &G,
    ) -> Result<Option<E>, StorageError> {
        self.get(&self.of_group(Kind::InterimTranscriptHash, group_id)?)
    }

    fn delete_interim_transcript_hash<G: traits::GroupId<CURRENT_VERSION>>(
        &self,
        group_id: &G,
    ) -> Result<(), StorageError> {
        self.delete(self.of_group(Kind::InterimTranscriptHash, group_id)?);
        Ok(())
    }

    fn write_context<
        G: traits::GroupId<CURRENT_VERSION>,
        E: traits::GroupContext<CURRENT_VERSION>,
    >(
        &self,
        group_id: &G,
        entity: &E,
    ) -> Result<(), StorageError> {
        self.put(self.of_group(Kind::GroupContext, group_id)?, entity)
    }

    fn group_context<
        G: traits::GroupId<CURRENT_VERSION>,
        E: traits::GroupContext<CURRENT_VERSION>,
    >(
        &self,
        group_id: &G,
    ) -> Result<Option<E>, StorageError> {
        self.get(&self.of_group(Kind::GroupContext, group_id)?)
    }

    fn delete_context<G: traits::GroupId<CURRENT_VERSION>>(
        &self,
        group_id: &G,
    ) -> Result<(), StorageError> {
        self.delete(self.of_group(Kind::GroupContext, group_id)?);
        Ok(())
    }

    fn write_confirmation_tag<
        G: traits::GroupId<CURRENT_VERSION>,
        E: traits::ConfirmationTag<CURRENT_VERSION>,
    >(
        &self,
        group_id: &G,
        entity: &E,
    ) -> Result<(), StorageError> {
        self.put(self.of_group(Kind::ConfirmationTag, group_id)?, entity)
    }

    fn confirmation_tag<
        G: traits::GroupId<CURRENT_VERSION>,
        E: traits::ConfirmationTag<CURRENT_VERSION>,
    >(
        &self,
        group_id: &G,
    ) -> Result<Option<E>, StorageError> {
        self.get(&self.of_group(Kind::ConfirmationTag, group_id)?)
    }

    fn delete_confirmation_tag<G: traits::GroupId<CURRENT_VERSION>>(
        &self,
        group_id: &G,
    ) -> Result<(), StorageError> {
        self.delete(self.of_group(Kind::ConfirmationTag, group_id)?);
        Ok(())
    }

    fn write_group_state<
        E: traits::GroupState<CURRENT_VERSION>,
        G: traits::GroupId<CURRENT_VERSION>,
    >(
        &self,
        group_id: &G,
        entity: &E,
    ) -> Result<(), StorageError> {
        self.put(self.of_group(Kind::GroupState, group_id)?, entity)
    }

    fn group_state<E: traits::GroupState<CURRENT_VERSION>, G: traits::GroupId<CURRENT_VERSION>>(
        &self,
        group_id: &G,
    ) -> Result<Option<E>, StorageError> {
        self.get(&self.of_group(Kind::GroupState, group_id)?)
    }

    fn delete_group_state<G: traits::GroupId<CURRENT_VERSION>>(
        &self,
        group_id: &G,
    ) -> Result<(), StorageError> {
        self.delete(self.of_group(Kind::GroupState, group_id)?);
        Ok(())
    }

    fn write_message_secrets<
        G: traits::GroupId<CURRENT_VERSION>,
        E: traits::MessageSecrets<CURRENT_VERSION>,
    >(
        &self,
        group_id: &G,
        entity: &E,
    ) -> Result<(), StorageError> {
        self.put(self.of_group(Kind::MessageSecrets, group_id)?, entity)
    }

    fn message_secrets<
        G: traits::GroupId<CURRENT_VERSION>,
        E: traits::MessageSecrets<CURRENT_VERSION>,
    >(
        &self,
        group_id: &G,
    ) -> Result<Option<E>, StorageError> {
        self.get(&self.of_group(Kind::MessageSecrets, group_id)?)
    }

    fn delete_message_secrets<G: traits::GroupId<CURRENT_VERSION>>(
        &self,
        group_id: &G,
    ) -> Result<(), StorageError> {
        self.delete(self.of_group(Kind::MessageSecrets, group_id)?);
        Ok(())
    }

    fn write_resumption_psk_store<
        G: traits::GroupId<CURRENT_VERSION>,
        E: traits::ResumptionPskStore<CURRENT_VERSION>,
    >(
        &self,
        group_id: &G,
        entity: &E,
    ) -> Result<(), StorageError> {
        self.put(self.of_group(Kind::ResumptionPsks, group_id)?, entity)
    }

    fn resumption_psk_store<
        G: traits::GroupId<CURRENT_VERSION>,
        E: traits::ResumptionPskStore<CURRENT_VERSION>,
    >(
        &self,
        group_id: &G,
    ) -> Result<Option<E>, StorageError> {
        self.get(&self.of_group(Kind::ResumptionPsks, group_id)?)
    }

    fn delete_all_resumption_psk_secrets<G: traits::GroupId<CURRENT_VERSION>>(
        &self,
        group_id: &G,
    ) -> Result<(), StorageError> {
        self.delete(self.of_group(Kind::ResumptionPsks, group_id)?);
        Ok(())
    }

    fn write_own_leaf_index<
        G: traits::GroupId<CURRENT_VERSION>,
        E: traits::LeafNodeIndex<CURRENT_VERSION>,
    >(
        &self,
        group_id: &G,
        entity: &E,
    ) -> Result<(), StorageError> {
        self.put(self.of_group(Kind::OwnLeafIndex, group_id)?, entity)
    }

    fn own_leaf_index<
        G: traits::GroupId<CURRENT_VERSION>,
        E: traits::LeafNodeIndex<CURRENT_VERSION>,
    >(
        &self,
        group_id: &G,
    ) -> Result<Option<E>, StorageError> {
        self.get(&self.of_group(Kind::OwnLeafIndex, group_id)?)
    }

    fn delete_own_leaf_index<G: traits::GroupId<CURRENT_VERSION>>(
        &self,
        group_id: &G,
    ) -> Result<(), StorageError> {
        self.delete(self.of_group(Kind::OwnLeafIndex, group_id)?);
        Ok(())
    }

    fn write_group_epoch_secrets<
        G: traits::GroupId<CURRENT_VERSION>,
        E: traits::GroupEpochSecrets<CURRENT_VERSION>,
    >(
        &self,
        group_id: &G,
        entity: &E,
    ) -> Result<(), StorageError> {
        self.put(self.of_group(Kind::EpochSecrets, group_id)?, entity)
    }

    fn group_epoch_secrets<
        G: traits::GroupId<CURRENT_VERSION>,
        E: traits::GroupEpochSecrets<CURRENT_VERSION>,
    >(
        &self,
        group_id: &G,
    ) -> Result<Option<E>, StorageError> {
        self.get(&self.of_group(Kind::EpochSecrets, group_id)?)
    }

    fn delete_group_epoch_secrets<G: traits::GroupId<CURRENT_VERSION>>(
        &self,
        group_id: &G,
    ) -> Result<(), StorageError> {
        self.delete(self.of_group(Kind::EpochSecrets, group_id)?);
        Ok(())
    }

    // Lists of a group.

    fn append_own_leaf_node<
        G: traits::GroupId<CURRENT_VERSION>,
        E: traits::LeafNode<CURRENT_VERSION>,
    >(
        &self,
        group_id: &G,
        leaf_node: &E,
    ) -> Result<(), StorageError> {
        let list = self.list(Kind::OwnLeafNode, group_id)?;
        let row = self.next_in_list(Kind::OwnLeafNode, group_id, &list, &[])?;
        self.put(row, leaf_node)
    }

    fn own_leaf_nodes<G: traits::GroupId<CURRENT_VERSION>, E: traits::LeafNode<CURRENT_VERSION>>(
        &self,
        group_id: &G,
    ) -> Result<Vec<E>, StorageError> {
        let list = self.list(Kind::OwnLeafNode, group_id)?;
        list.iter()
            .filter_map(|row| self.get(row).transpose())
            .collect()
    }

    fn delete_own_leaf_nodes<G: traits::GroupId<CURRENT_VERSION>>(
        &self,
        group_id: &G,
    ) -> Result<(), StorageError> {
        self.delete_list(Kind::OwnLeafNode, group_id)
    }

    fn queue_proposal<
        G: traits::GroupId<CURRENT_VERSION>,
        R: traits::ProposalRef<CURRENT_VERSION>,
        E: traits::QueuedProposal<CURRENT_VERSION>,
    >(
        &self,
        group_id: &G,
        proposal_ref: &R,
        proposal: &E,
    ) -> Result<(), StorageError> {
        // A proposal that comes twice is queued once.
        self.remove_proposal(group_id, proposal_ref)?;
        let list = self.list(Kind::Proposal, group_id)?;
        let proposal_ref = encode(proposal_ref)?;
        let row = self.next_in_list(Kind::Proposal, group_id, &list, &proposal_ref)?;
        self.put(row, proposal)
    }

    fn queued_proposal_refs<
        G: traits::GroupId<CURRENT_VERSION>,
        R: traits::ProposalRef<CURRENT_VERSION>,
    >(
        &self,
        group_id: &G,
    ) -> Result<Vec<R>, StorageError> {
        let list = self.list(Kind::Proposal, group_id)?;
        list.iter()
            .map(|row| decode(row.kind, row.rest()?))
            .collect()
    }

    fn queued_proposals<
        G: traits::GroupId<CURRENT_VERSION>,
        R: traits::ProposalRef<CURRENT_VERSION>,
        E: traits::QueuedProposal<CURRENT_VERSION>,
    >(
        &self,
        group_id: &G,
    ) -> Result<Vec<(R, E)>, StorageError> {
        let mut proposals = Vec::new();
        for row in self.list(Kind::Proposal, group_id)? {
            if let Some(proposal) = self.get(&row)? {
                proposals.push((decode(row.kind, row.rest()?)?, proposal));
            }
        }
        Ok(proposals)
    }

    fn remove_proposal<
        G: traits::GroupId<CURRENT_VERSION>,
        R: traits::ProposalRef<CURRENT_VERSION>,
    >(
        &self,
        group_id: &G,
        proposal_ref: &R,
    ) -> Result<(), StorageError> {
        let proposal_ref = encode(proposal_ref)?;
        for row in self.list(Kind::Proposal, group_id)? {
            if row.rest()? == proposal_ref.as_slice() {
                self.delete(row);
            }
        }
        Ok(())
    }

    fn clear_proposal_queue<
        G: traits::GroupId<CURRENT_VERSION>,
        R: traits::ProposalRef<CURRENT_VERSION>,
    >(
        &self,
        group_id: &G,
    ) -> Result<(), StorageError> {
        self.delete_list(Kind::Proposal, group_id)
    }

    // Our private keys in a group's tree, by epoch.

    fn write_encryption_epoch_key_pairs<
        G: traits::GroupId<CURRENT_VERSION>,
        K: traits::EpochKey<CURRENT_VERSION>,
        E: traits::HpkeKeyPair<CURRENT_VERSION>,
    >(
        &self,
        group_id: &G,
        epoch: &K,
        leaf_index: u32,
        key_pairs: &[E],
    ) -> Result<(), StorageError> {
        self.put(
            self.epoch_key_pairs(group_id, epoch, leaf_index)?,
            key_pairs,
        )
    }

    fn encryption_epoch_key_pairs<
        G: traits::GroupId<CURRENT_VERSION>,
        K: traits::EpochKey<CURRENT_VERSION>,
        E: traits::HpkeKeyPair<CURRENT_VERSION>,
    >(
        &self,
        group_id: &G,
        epoch: &K,
        leaf_index: u32,
    ) -> Result<Vec<E>, StorageError> {
        let key_pairs = self.get(&self.epoch_key_pairs(group_id, epoch, leaf_index)?)?;
        Ok(key_pairs.unwrap_or_default())
    }

    fn delete_encryption_epoch_key_pairs<
        G: traits::GroupId<CURRENT_VERSION>,
        K: traits::EpochKey<CURRENT_VERSION>,
    >(
        &self,
        group_id: &G,
        epoch: &K,
        leaf_index: u32,
    ) -> Result<(), StorageError> {
        self.delete(self.epoch_key_pairs(group_id, epoch, leaf_index)?);
        Ok(())
    }

    // Keys of the agent.

    fn write_signature_key_pair<
        K: traits::SignaturePublicKey<CURRENT_VERSION>,
        E: traits::SignatureKeyPair<CURRENT_VERSION>,
    >(
        &self,
        key: &K,
        entity: &E,
    ) -> Result<(), StorageError> {
        self.put(RowKey::of_agent(Kind::SignatureKeyPair, key)?, entity)
    }

    fn signature_key_pair<
        K: traits::SignaturePublicKey<CURRENT_VERSION>,
        E: traits::SignatureKeyPair<CURRENT_VERSION>,
    >(
        &self,
        key: &K,
    ) -> Result<Option<E>, StorageError> {
        self.get(&RowKey::of_agent(Kind::SignatureKeyPair, key)?)
    }

    fn delete_signature_key_pair<K: traits::SignaturePublicKey<CURRENT_VERSION>>(
        &self,
        key: &K,
    ) -> Result<(), StorageError> {
        self.delete(RowKey::of_agent(Kind::SignatureKeyPair, key)?);
        Ok(())
    }

    fn write_encryption_key_pair<
        K: traits::EncryptionKey<CURRENT_VERSION>,
        E: traits::HpkeKeyPair<CURRENT_VERSION>,
    >(
        &self,
        key: &K,
        entity: &E,
    ) -> Result<(), StorageError> {
        self.put(RowKey::of_agent(Kind::EncryptionKeyPair, key)?, entity)
    }

    fn encryption_key_pair<
        E: traits::HpkeKeyPair<CURRENT_VERSION>,
        K: traits::EncryptionKey<CURRENT_VERSION>,
    >(
        &self,
        key: &K,
    ) -> Result<Option<E>, StorageError> {
        self.get(&RowKey::of_agent(Kind::EncryptionKeyPair, key)?)
    }

    fn delete_encryption_key_pair<K: traits::EncryptionKey<CURRENT_VERSION>>(
        &self,
        key: &K,
    ) -> Result<(), StorageError> {
        self.delete(RowKey::of_agent(Kind::EncryptionKeyPair, key)?);
        Ok(())
    }

    fn write_key_package<
        K: traits::HashReference<CURRENT_VERSION>,
        E: traits::KeyPackage<CURRENT_VERSION>,
    >(
        &self,
        key: &K,
        entity: &E,
    ) -> Result<(), StorageError> {
        self.put(RowKey::of_agent(Kind::KeyPackage, key)?, entity)
    }

    fn key_package<
        K: traits::HashReference<CURRENT_VERSION>,
        E: traits::KeyPackage<CURRENT_VERSION>,
    >(
        &self,
        key: &K,
    ) -> Result<Option<E>, StorageError> {
        self.get(&RowKey::of_agent(Kind::KeyPackage, key)?)
    }

    fn delete_key_package<K: traits::HashReference<CURRENT_VERSION>>(
        &self,
        key: &K,
    ) -> Result<(), StorageError> {
        self.delete(RowKey::of_agent(Kind::KeyPackage, key)?);
        Ok(())
    }

    fn write_psk<K: traits::PskId<CURRENT_VERSION>, E: traits::PskBundle<CURRENT_VERSION>>(
        &self,
        key: &K,
        entity: &E,
    ) -> Result<(), StorageError> {
        self.put(RowKey::of_agent(Kind::Psk, key)?, entity)
    }

    fn psk<E: traits::PskBundle<CURRENT_VERSION>, K: traits::PskId<CURRENT_VERSION>>(
        &self,
        key: &K,
    ) -> Result<Option<E>, StorageError> {
        self.get(&RowKey::of_agent(Kind::Psk, key)?)
    }

    fn delete_psk<K: traits::PskId<CURRENT_VERSION>>(&self, key: &K) -> Result<(), StorageError> {
        self.delete(RowKey::of_agent(Kind::Psk, key)?);
        Ok(())
    }
}

#[cfg(test)]
mod tests;
