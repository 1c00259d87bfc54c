use skytale_agent::{Agent, hands, view};
use skytale_wire::id::MessageId;
use tokio::runtime::{Builder, Handle};

use super::*;
use crate::clock;

/// Names the command's own relay, so that the channel shows which of two was first.
fn open(relay: u8) -> Command {
    Command::Open {
        name: "acme/ops/plan".parse().unwrap(),
        relay: RelayKey([relay; 32]),
        addresses: vec!["127.0.0.1:9".into()],
    }
}

/// A process hands a command over, takes the dead holder's place, and has asked for more meanwhile.
#[test]
fn what_was_handed_over_goes_before_what_is_asked_of_the_new_mind() {
    let dir = tempfile::tempdir().unwrap();
    let vault = Arc::new(Vault::new_in(dir.path()));
    let mut conn = vault.connect().unwrap();
    Agent::migrate(&mut conn).unwrap();
    let tx = begin(&mut conn).unwrap();
    hands::submit(&tx, MessageId([1; 16]), &open(1), clock::now()).unwrap();
    tx.commit().unwrap();

    let runtime = Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let threads = Threads::new(&Handle::current());
        let (asks, asked) = mpsc::channel(2);
        let (answer, _nobody_waits) = oneshot::channel();
        let asked_last = Ask::Do {
            id: MessageId([2; 16]),
            command: open(2),
            answer,
        };
        asks.send(asked_last).await.unwrap();
        let (done, _) = oneshot::channel();
        asks.send(Ask::Close(done)).await.unwrap();
        let mut body = Body {
            lock: vault.lock_file().unwrap(),
            start: Start {
                vault: Arc::clone(&vault),
                label: "alice".into(),
                home: None,
                account: None,
                timeouts: Timeouts::default(),
                traffic: Traffic::default(),
                notices: broadcast::channel(1).0,
                tally: Arc::default(),
                runtime: link::Runtime::start(&threads).unwrap(),
            },
            stop: threads.stop_token(),
            asks: asked,
            news: watch::channel(0).0,
            waiting: BTreeMap::new(),
            opened: None,
        };
        body.live().await.unwrap();
        threads.end().await;
    });

    let channels = view::channels(&conn).unwrap();
    assert_eq!(channels.len(), 1, "the second command found the channel");
    assert_eq!(channels[0].relay, RelayKey([1; 32]));
}
