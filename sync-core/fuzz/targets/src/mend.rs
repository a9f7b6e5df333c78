//! Fields of messages that say what they are about, so that a message of any bytes can be made to be about something.

use sync_core::history::Epoch;
use sync_core::ids::Channel;
use sync_core::wire::{Message, Reference};

/// The channel, of a message that has one.
pub(crate) fn channel(message: &mut Message) -> Option<&mut Channel> {
    Some(match message {
        Message::Opened(it) => &mut it.channel,
        Message::Push(it) => &mut it.channel,
        Message::Changes(it) => &mut it.channel,
        Message::Ack(it) => &mut it.channel,
        Message::Refuse(it) => &mut it.channel,
        Message::Snapshot(it) => &mut it.channel,
        Message::FoldRequest(it) => &mut it.channel,
        Message::FoldOffer(it) => &mut it.channel,
        Message::Presence(it) => &mut it.channel,
        Message::Broadcast(it) => &mut it.channel,
        Message::Access(it) => &mut it.channel,
        Message::Close(it) => &mut it.channel,
        Message::Closed(it) => &mut it.channel,
        Message::Fragment(it) => &mut it.channel,
        Message::Author(it) => &mut it.channel,
        Message::Pong(it) => &mut it.heads.first_mut()?.0,
        Message::Extension(it) => it.channel.as_mut()?,
        Message::Error(it) => match &mut it.reference {
            Reference::Channel(channel) | Reference::Change(channel, _) => channel,
            _ => return None,
        },
        _ => return None,
    })
}

/// The epoch, of a message that has one.
pub(crate) fn epoch(message: &mut Message) -> Option<&mut Epoch> {
    Some(match message {
        Message::Open(it) => &mut it.cursor.as_mut()?.epoch,
        Message::Opened(it) => &mut it.epoch,
        Message::Snapshot(it) => &mut it.epoch,
        Message::FoldOffer(it) => &mut it.epoch,
        _ => return None,
    })
}
