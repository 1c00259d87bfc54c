//! The SDK as programs use it: its examples, run as they are written, and what a program may rely
//! on besides: that it may just end, that `ask` gets its answer, that `online` and `caught_up` mean
//! what they say.
#![allow(clippy::unwrap_used, reason = "a failing unwrap is a failing test")]

use std::{
    path::Path,
    sync::mpsc::{self, Receiver, Sender},
    time::Duration,
};

use data_encoding::HEXLOWER;
use futures_util::{future::join_all, poll};
use serde_json::{Value, json};
use skytale_sdk::{
    Agent, AgentId, Channel, Error, Mode,
    slim::{Ended, Event, Invitations, Message, Settings, SharedSecret, SlimParty},
};
use skytale_tests::processes::{Machine, PATIENCE, Ran, Said, Speaker, finish, program};
use tokio::{
    task::spawn_blocking,
    time::{sleep, timeout},
};

const CHANNEL: &str = "acme/ops/plan";

#[test]
fn two_agents_in_one_program() {
    let machine = Machine::new();
    let servers = machine.up(None);

    let ran = run(&machine, env!("CARGO_BIN_EXE_example-two-agents"), &[]).ok();

    let lines: Vec<&str> = ran.stdout.lines().collect();
    let [said, words, members] = lines[..] else {
        panic!("{ran:?}")
    };
    assert_eq!(said, "planner says: Ready when you are.");
    assert_eq!(members, "2 members");
    let words: Vec<&str> = words.strip_prefix("words: ").unwrap().split(' ').collect();
    assert_eq!(words.len(), 5);
    assert_eq!(ran.stderr, "");
    // It removed coder in the end, and coder had answered.
    let members = machine.run("members --json --as planner").ok().json_lines();
    assert_eq!(members.len(), 1);
    let read = machine.run("read --json --as planner").ok();
    assert_eq!(read.json()["text"], "Got it.");
    servers.terminate();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_question_and_its_answer() {
    let machine = Machine::new();
    let servers = machine.up(None);
    machine.two_agents();
    let answering = tokio::spawn(answer_all(open(&machine, "coder").await));

    let ran = ask(&machine, "Which port?").await.ok();

    assert_eq!(ran.stdout, "coder: answer to Which port?\n");
    assert_eq!(ran.stderr, "");
    answering.abort();
    servers.terminate();
}

/// About one in twenty-five crashed at its end: a thread of ours still worked in SQLCipher while
/// the C library cleared OpenSSL away.
#[test]
fn a_program_that_ends_without_closing_its_agent_ends_well() {
    let machine = Machine::new();
    let servers = machine.up(None);

    for number in 0..50 {
        let said = number.to_string();
        let tell = env!("CARGO_BIN_EXE_example-tell");
        let ran = run(&machine, tell, &["planner", CHANNEL, &said]).ok();
        assert!(ran.stdout.starts_with("stored at "), "{ran:?}");
        assert_eq!(ran.stderr, "");
    }

    // And what it sent is there.
    machine.run("open acme/ops/plan --as planner").ok();
    servers.terminate();
    let records = machine.run("relay-dump --json").ok().json_lines();
    let messages = records.iter().filter(|it| it["kind"] == "application");
    assert_eq!(messages.count(), 50);
}

/// A reader in another process used to take replies away from `ask`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_reaches_who_asked_and_no_reader_of_the_same_name() {
    let machine = Machine::new();
    let servers = machine.up(None);
    machine.two_agents();
    let coder = open(&machine, "coder").await;
    let answering = tokio::spawn(answer_all(coder));
    let (mouth, ears) = mpsc::channel();
    let mut follower = follow(&machine, &mouth);
    let next = || text_of_next(&ears);

    // The follower holds the line, and whoever asks is a hand.
    machine.say("hello?", "send --as coder").ok();
    assert_eq!(next(), "hello?");
    assert_eq!(machine.holder("planner"), follower.pid());
    for number in 0..10 {
        let question = format!("{number}?");
        let ran = ask(&machine, &question).await.ok();
        assert_eq!(ran.stdout, format!("coder: answer to {question}\n"));
        assert_eq!(next(), format!("noted {question}"));
    }
    follower.kill();

    // Now who asks holds the line and reads in a loop as well, and the follower is a hand.
    let planner = open(&machine, "planner").await;
    let plan = planner.find(CHANNEL).await.unwrap().unwrap();
    follower = follow(&machine, &mouth);
    let looping = tokio::spawn(read_all(plan.clone(), mouth.clone()));
    for number in 10..20 {
        let reply = plan.ask(format!("{number}?")).await.unwrap();
        assert_eq!(reply.text().unwrap(), format!("answer to {number}?"));
    }
    plan.send("last").await.unwrap();
    let mut shown: Vec<Value> = (10..21).map(|_| next()).collect();
    shown.sort_by_key(ToString::to_string);
    let mut expected: Vec<Value> = (10..20).map(|it| format!("noted {it}?").into()).collect();
    expected.push("noted last".into());
    assert_eq!(shown, expected, "shared out between loop and follower");

    answering.abort();
    looping.abort();
    follower.kill();
    drop(plan);
    planner.close().await.unwrap();
    servers.terminate();
}

/// Whoever asks may be killed, or lose its patience, after a reader has set its answer aside.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_that_nobody_waits_for_any_more_is_a_message_like_others() {
    let machine = Machine::new();
    let servers = machine.up(None);
    machine.two_agents();
    let coder = open(&machine, "coder").await;
    let work = coder.find(CHANNEL).await.unwrap().unwrap();
    let (mouth, ears) = mpsc::channel();
    let follower = follow(&machine, &mouth);
    let next = || text_of_next(&ears);
    let planner = open(&machine, "planner").await;
    let plan = planner.find(CHANNEL).await.unwrap().unwrap();

    // As a process that asks and is about to be killed.
    let sent = plan.send("Which port?").await.unwrap();
    let questions = planner.data_dir().join("questions");
    std::fs::create_dir_all(&questions).unwrap();
    let file = std::fs::File::create(questions.join(HEXLOWER.encode(&sent.id.0))).unwrap();
    file.lock().unwrap();
    let question = within(work.messages().next()).await.unwrap().unwrap();
    question.reply("4433").await.unwrap();
    work.send("Anything else?").await.unwrap();
    assert_eq!(next(), "Anything else?");
    drop(file);
    assert_eq!(next(), "4433");

    // Nobody answers in time.
    let late = plan.ask_with("Which host?", Duration::from_millis(1)).await;
    assert!(matches!(late, Err(Error::Timeout { .. })), "{late:?}");
    let mut inbox = work.messages();
    let question = loop {
        let message = within(inbox.next()).await.unwrap().unwrap();
        if message.text().unwrap() == "Which host?" {
            break message;
        }
    };
    question.reply("localhost").await.unwrap();
    assert_eq!(next(), "localhost");
    // Whoever looks around next, a second later at most, forgets who has died asking.
    let forgotten = async {
        while std::fs::read_dir(&questions).unwrap().count() > 0 {
            sleep(Duration::from_millis(10)).await;
        }
    };
    within(forgotten).await;

    follower.kill();
    drop((plan, work, question, inbox));
    planner.close().await.unwrap();
    coder.close().await.unwrap();
    servers.terminate();
}

/// `online` used to return before the relay had the KeyPackages by which others add us.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_online_can_be_added() {
    let machine = Machine::new();
    let servers = machine.up(None);
    let planner = open(&machine, "planner").await;
    let plan = planner.channel(CHANNEL).await.unwrap();

    let mut added = Vec::new();
    for number in 0..5 {
        let agent = open(&machine, &format!("coder{number}")).await;
        agent.online().await.unwrap();
        let status = agent.status().await.unwrap();
        assert_eq!(status.relays[0].key_packages, Some(30));
        plan.add(agent.id()).await.unwrap();
        added.push(agent);
    }

    let ids: Vec<AgentId> = added.iter().map(Agent::id).collect();
    plan.remove_all(ids).await.unwrap();
    assert_eq!(plan.members().await.unwrap().len(), 1);
    for agent in added {
        agent.close().await.unwrap();
    }
    drop(plan);
    planner.close().await.unwrap();
    servers.terminate();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_has_caught_up_has_everything_that_the_relay_had() {
    const MESSAGES: u32 = 400;
    let machine = Machine::new();
    let servers = machine.up(None);
    machine.two_agents();
    let planner = open(&machine, "planner").await;
    let plan = planner.find(CHANNEL).await.unwrap().unwrap();
    let late = open(&machine, "late").await;
    late.online().await.unwrap();
    let id = late.id();
    late.close().await.unwrap();
    join_all((0..MESSAGES).map(|number| plan.send(number.to_string())))
        .await
        .into_iter()
        .for_each(|sent| assert!(sent.is_ok(), "{sent:?}"));
    plan.add(id).await.unwrap();
    plan.send("Welcome.").await.unwrap();

    let coder = open(&machine, "coder").await;
    coder.caught_up().await.unwrap();
    let work = coder.find(CHANNEL).await.unwrap().unwrap();
    let view = work.view().await.unwrap();
    assert_eq!(view.unread, MESSAGES + 1);
    work.caught_up().await.unwrap();

    // One that was added while it was away has the channel, or the offer of it.
    let late = open(&machine, "late").await;
    late.caught_up().await.unwrap();
    assert_eq!(late.channels().await.unwrap().len(), 1);

    drop((plan, work));
    for agent in [planner, coder, late] {
        agent.close().await.unwrap();
    }
    servers.terminate();
}

/// Runs a program in a machine's environment, to its end.
fn run(machine: &Machine, program: &str, words: &[&str]) -> Ran {
    finish(machine.command(Path::new(program), words), "")
}

/// Asks as planner, in a process of its own.
async fn ask(machine: &Machine, question: &str) -> Ran {
    let program = Path::new(env!("CARGO_BIN_EXE_example-ask"));
    let command = machine.command(program, &["planner", CHANNEL, question]);
    // Whoever answers runs on this test's runtime, which must go on.
    spawn_blocking(|| finish(command, "")).await.unwrap()
}

/// Reads as planner, in a process of its own, until it is killed.
fn follow(machine: &Machine, mouth: &Sender<Said<()>>) -> Speaker {
    let words = ["read", "--follow", "--json", "--as", "planner"];
    Speaker::start(machine.command(program(), &words), (), mouth)
}

/// What the next message says that anybody is shown. The end of a killed follower says nothing.
#[track_caller]
fn text_of_next(ears: &Receiver<Said<()>>) -> Value {
    loop {
        let said = ears.recv_timeout(PATIENCE).expect("a message is shown");
        if let Some(mut what) = said.what {
            return what["text"].take();
        }
    }
}

/// Its channel is over, and what another loop had held until then is free only now.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_loop_over_a_closed_channel_gives_out_what_a_dropped_one_had_leased() {
    let machine = Machine::new();
    let servers = machine.up(None);
    machine.two_agents();
    let coder = open(&machine, "coder").await;
    let channel = coder.find(CHANNEL).await.unwrap().unwrap();
    for text in ["one", "two"] {
        machine.say(text, "send --as planner").ok();
    }
    coder.caught_up().await.unwrap();
    let (mut first, mut second) = (channel.messages(), channel.messages());
    let one = within(first.next()).await.unwrap().unwrap();
    assert_eq!(one.text().unwrap(), "one");
    // It looks around, finds everything leased, and would not look again for a second.
    let mut waiting = Box::pin(second.next());
    assert!(
        timeout(Duration::from_millis(200), &mut waiting)
            .await
            .is_err()
    );

    drop((one, first));
    within(Box::pin(channel.leave())).await.unwrap();

    let again = within(waiting).await.unwrap().unwrap();
    assert_eq!(again.text().unwrap(), "one");
    let two = within(second.next()).await.unwrap().unwrap();
    assert_eq!(two.text().unwrap(), "two");
    assert!(within(second.next()).await.unwrap().is_none());
    drop((again, two, second, channel));
    coder.close().await.unwrap();
    servers.terminate();
}

/// What such a loop leases after it has gone would be nobody's until a day later.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_loop_that_is_dropped_while_it_fetches_holds_nothing_back() {
    let machine = Machine::new();
    let servers = machine.up(None);
    machine.two_agents();
    let coder = open(&machine, "coder").await;
    let channel = coder.find(CHANNEL).await.unwrap().unwrap();
    let said = machine.say("kept\n", "send --as planner");
    said.ok();
    coder.caught_up().await.unwrap();

    for _ in 0..100 {
        let mut inbox = channel.messages();
        let mut next = Box::pin(inbox.next());
        // The fetching begins, and the loop is gone before it ends.
        let _ = poll!(&mut next);
    }

    let message = within(channel.messages().next()).await.unwrap().unwrap();
    assert_eq!(message.text().unwrap(), "kept");
    drop((message, channel));
    coder.close().await.unwrap();
    servers.terminate();
}

/// The event that ends a session may still wait for the application when it speaks again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn to_name_a_slim_session_that_has_just_ended_is_no_mistake() {
    let machine = Machine::new();
    let servers = machine.up(None);
    let (planner, coder) = (
        open(&machine, "planner").await,
        open(&machine, "coder").await,
    );
    let secret = || SharedSecret::new("a secret that is long enough for SLIM").unwrap();
    let mut invited = coder
        .slim_session("acme/ops/coder", secret(), Invitations::OnlyWithMls)
        .await
        .unwrap();
    let mut inviting = planner
        .slim_session("acme/ops/planner", secret(), Invitations::OnlyWithMls)
        .await
        .unwrap();
    let settings = Settings::default();
    let session = inviting.open("acme/ops/coder", settings).await.unwrap();
    hears(&mut inviting, |it| matches!(it, Event::Added { .. })).await;
    hears(&mut invited, |it| matches!(it, Event::Joined { .. })).await;

    // It has left when the other one has heard of it.
    invited.leave(session).await.unwrap();
    hears(&mut invited, |it| matches!(it, Event::Ended { .. })).await;
    let said = inviting.publish(session, Message::new("too late")).await;
    let left = inviting.leave(session).await;

    assert!(matches!(said, Err(Error::NotFound(_))), "{said:?}");
    assert!(matches!(left, Err(Error::NotFound(_))), "{left:?}");
    let why = Ended::PeerLeft;
    hears(
        &mut inviting,
        |it| matches!(it, Event::Ended { why: it, .. } if *it == why),
    )
    .await;
    drop((invited, inviting));
    planner.close().await.unwrap();
    coder.close().await.unwrap();
    servers.terminate();
}

async fn hears(party: &mut SlimParty, is_it: impl Fn(&Event) -> bool) {
    while !is_it(&within(party.next()).await.unwrap().unwrap()) {}
}

async fn open(machine: &Machine, name: &str) -> Agent {
    Agent::builder(name)
        .data_dir(machine.data())
        .config_dir(machine.config())
        .traffic(Mode::Padded)
        .open()
        .await
        .unwrap()
}

/// Says for each message that it was read, and then answers it.
async fn answer_all(agent: Agent) {
    let channel = agent.find(CHANNEL).await.unwrap().unwrap();
    let mut inbox = channel.messages();
    while let Some(message) = inbox.next().await.unwrap() {
        let text = message.text().unwrap();
        channel.send(format!("noted {text}")).await.unwrap();
        if text.ends_with('?') {
            message.reply(format!("answer to {text}")).await.unwrap();
        }
    }
}

async fn read_all(channel: Channel, mouth: Sender<Said<()>>) {
    let mut inbox = channel.messages();
    while let Some(message) = inbox.next().await.unwrap() {
        let what = Some(json!({"text": message.text().unwrap()}));
        mouth.send(Said { who: (), what }).unwrap();
    }
}

async fn within<T>(future: impl Future<Output = T>) -> T {
    timeout(PATIENCE, future).await.expect("it goes on")
}
