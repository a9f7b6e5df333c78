//! Two people keep notes in a Loro document: a text, a list whose items can be moved, a tree, and undo.
//!
//!     cargo run -p sync-examples --features loro --bin notes

#![expect(clippy::print_stdout, reason = "a program for the terminal")]

use std::error::Error;
use std::time::Duration;

use sync_client::loro::{LoroDoc, LoroResult, LoroValue, TreeID, TreeParentId};
use sync_client::{Client, DocumentHandle, Loro};
use sync_examples::local::LocalServer;
use tokio::time::timeout;

type Failure = Box<dyn Error + Send + Sync>;

const PATIENCE: Duration = Duration::from_secs(10);

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let server = LocalServer::start().await?;
    let (ada, bob) = (Person::new(&server).await?, Person::new(&server).await?);

    scene("Ada writes, in one change");
    let topics = ada.notes.edit(write_first)??;
    let first = ada.notes.version()?;
    arrive(&ada, &bob).await?;
    bob.show("Bob");

    scene("offline, both move items and topics; each is in one place in the end");
    bob.client.disconnect();
    ada.notes
        .edit(|doc| doc.get_movable_list("shopping").mov(0, 2))??;
    bob.notes
        .edit(|doc| doc.get_movable_list("shopping").mov(0, 1))??;
    ada.notes
        .edit(|doc| doc.get_tree("topics").mov(topics[1], topics[0]))??;
    bob.notes
        .edit(|doc| doc.get_tree("topics").mov(topics[0], topics[1]))??;
    ada.notes
        .edit(|doc| doc.get_text("text").push_str(" Call Bob."))??;
    // An editor would keep the engine's own handle. What is done with it counts when it is committed.
    let editor = bob.notes.native();
    editor.get_text("text").push_str(" Bob was here.")?;
    editor.commit();
    bob.client.connect();
    arrive(&ada, &bob).await?;
    arrive(&bob, &ada).await?;
    ada.show("Ada");
    if ada.notes.read(render) != bob.notes.read(render) {
        return Err("Ada and Bob see different notes".into());
    }

    scene("Ada takes her last edit back; Bob's stay");
    ada.notes.undo()?;
    arrive(&ada, &bob).await?;
    bob.show("Bob");

    scene("and this is how it began");
    println!("{}", ada.notes.read_at(&first, render)?);
    Ok(())
}

struct Person {
    client: Client,
    notes: DocumentHandle<Loro>,
}

impl Person {
    async fn new(server: &LocalServer) -> Result<Self, Failure> {
        let client = Client::builder(server.address()).start()?;
        let notes = client.open("notes", Loro::new().keep_undo()).await?;
        Ok(Self { client, notes })
    }

    fn show(&self, name: &str) {
        println!("{name} sees\n{}", self.notes.read(render));
    }
}

fn write_first(doc: &mut LoroDoc) -> LoroResult<[TreeID; 2]> {
    doc.get_text("text").insert(0, "Remember the milk.")?;
    let shopping = doc.get_movable_list("shopping");
    for item in ["milk", "bread", "tea"] {
        shopping.push(item)?;
    }
    let tree = doc.get_tree("topics");
    let mut topics = [TreeID::new(0, 0); 2];
    for (topic, name) in topics.iter_mut().zip(["home", "work"]) {
        *topic = tree.create(TreeParentId::Root)?;
        tree.get_meta(*topic)?.insert("name", name)?;
    }
    Ok(topics)
}

/// Until `to` has what `from` has made.
async fn arrive(from: &Person, to: &Person) -> Result<(), Failure> {
    timeout(PATIENCE, from.notes.saved()).await??;
    let version = from.notes.version()?;
    let mut revision = to.notes.revision();
    while to.notes.read_at(&version, |_| ()).is_err() {
        timeout(PATIENCE, revision.changed()).await??;
    }
    Ok(())
}

fn render(doc: &LoroDoc) -> String {
    let items = doc.get_movable_list("shopping").to_vec();
    let items: Vec<String> = items.iter().map(word).collect();
    let topics = branches(doc, TreeParentId::Root);
    let text = doc.get_text("text").to_string();
    format!(
        "  {text}\n  to buy: {}\n  topics: {topics}",
        items.join(", ")
    )
}

fn branches(doc: &LoroDoc, parent: TreeParentId) -> String {
    let tree = doc.get_tree("topics");
    let names = tree
        .children(parent)
        .unwrap_or_default()
        .into_iter()
        .map(|node| {
            let meta = tree.get_meta(node).map(|meta| meta.get_deep_value());
            let name = match meta {
                Ok(LoroValue::Map(meta)) => meta.get("name").map(word).unwrap_or_default(),
                _ => String::new(),
            };
            match branches(doc, TreeParentId::Node(node)) {
                inner if inner.is_empty() => name,
                inner => format!("{name} ({inner})"),
            }
        });
    names.collect::<Vec<_>>().join(", ")
}

fn word(value: &LoroValue) -> String {
    match value {
        LoroValue::String(word) => word.to_string(),
        other => format!("{other:?}"),
    }
}

fn scene(title: &str) {
    println!("\n{title}");
}
