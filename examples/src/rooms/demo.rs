//! Two people in a room, without anybody at the keyboard.

use std::time::Duration;

use sync_client::Client;
use tokio::time::timeout;

use super::serve::{SECRET, Serving};
use super::tokens::sign;
use super::{Failure, Happening, House, Room};

/// Far more than anything takes here.
const PATIENCE: Duration = Duration::from_secs(30);

/// Plays, and prints with `print` what happens. Fails if anything else does.
///
/// # Errors
/// What did not happen.
pub async fn play(server: &Serving, print: impl Fn(&str)) -> Result<(), Failure> {
    let ada = enter(server, "ada").await?;
    let mut hers = ada.join("garden").await?;
    hers.write("plant tulips")?;
    hers.saved().await?;

    let ben = enter(server, "ben").await?;
    let found = ben.rooms();
    print(&format!("ben finds: {}", found.join(", ")));
    let mut his = ben.join("garden").await?;
    his.caught_up().await?;
    print(&format!("ben reads: {}", his.text().trim_end()));

    until(&mut hers, "ben comes in", |room, _| room.who().len() == 2).await?;
    his.doing("digging")?;
    until(&mut hers, "ben digs", |room, _| {
        room.who().contains(&"ben is digging".to_owned())
    })
    .await?;
    print(&format!("ada sees: {}", hers.who().join(", ")));

    hers.say("shall we begin?")?;
    heard(&mut his, "ada", "shall we begin?").await?;
    print("ada to ben: shall we begin?");
    his.say("I have")?;
    heard(&mut hers, "ben", "I have").await?;
    print("ben to ada: I have");

    his.write("water them")?;
    until(&mut hers, "what ben wrote", |room, _| {
        room.text() == "plant tulips\nwater them\n"
    })
    .await?;
    print(&format!(
        "ada reads: {}",
        hers.text().trim_end().replace('\n', ", ")
    ));
    his.saved().await?;

    drop(his);
    ben.client().shutdown(PATIENCE).await;
    until(&mut hers, "ben leaves", |room, _| room.who().len() == 1).await?;
    print(&format!("ada sees: {}", hers.who().join(", ")));
    Ok(())
}

async fn enter(server: &Serving, name: &str) -> Result<House, Failure> {
    let token = sign(name, SECRET.as_bytes());
    let house = House::enter(Client::builder(server.address()).token(token), name).await?;
    timeout(PATIENCE, house.caught_up())
        .await
        .map_err(|_| "nobody answers")??;
    Ok(house)
}

async fn heard(room: &mut Room, who: &str, text: &str) -> Result<(), Failure> {
    let line = Happening::Said {
        who: who.to_owned(),
        text: text.to_owned(),
    };
    until(room, "the line", |_, happened| happened == Some(&line)).await
}

/// Waits until this is so, or what it waits for has happened.
async fn until(
    room: &mut Room,
    what: &str,
    is_so: impl Fn(&Room, Option<&Happening>) -> bool,
) -> Result<(), Failure> {
    let waiting = async {
        let mut happened = None;
        while !is_so(room, happened.as_ref()) {
            happened = Some(room.next().await.ok_or("the room is closed")?);
        }
        Ok(())
    };
    timeout(PATIENCE, waiting)
        .await
        .unwrap_or_else(|_| Err(format!("it did not happen: {what}").into()))
}
