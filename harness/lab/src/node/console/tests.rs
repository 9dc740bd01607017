use super::*;
use crate::api::kubelet::LogOptions;
use futures::TryStreamExt as _;

/// A console of pipes in memory, and the container's ends of them.
fn console(input: Input) -> (Arc<Console>, Outputs, DuplexStream, DuplexStream) {
    let (stdin, reads) = tokio::io::duplex(PIECE);
    let (writes, stdout) = tokio::io::duplex(PIECE);
    let stdin: Box<dyn AsyncWrite + Send + Unpin> = Box::new(stdin);
    let console = Console {
        log: Arc::default(),
        stdout: Tap::default(),
        stderr: Tap::default(),
        stdin: input
            .open
            .then(|| Arc::new(tokio::sync::Mutex::new(Some(stdin)))),
        once: input.once,
        terminal: None,
        ended: CancellationToken::new(),
    };
    let outputs = Outputs {
        stdout: Some(Box::new(stdout)),
        stderr: None,
    };
    (Arc::new(console), outputs, reads, writes)
}

async fn all(mut from: impl AsyncRead + Unpin) -> String {
    let mut text = String::new();
    from.read_to_string(&mut text).await.unwrap();
    text
}

#[tokio::test]
async fn who_is_attached_reads_what_is_written_from_then_on() {
    let (console, outputs, _, mut writes) = console(Input::default());
    let copied = tokio::spawn({
        let console = console.clone();
        async move { console.copy(outputs).await }
    });
    let early = console.attach(false).unwrap();
    writes.write_all(b"one\n").await.unwrap();
    let mut stdout = early.stdout;
    let mut line = [0; 4];
    stdout.read_exact(&mut line).await.unwrap();
    // Without a newline: a prompt.
    let late = console.attach(false).unwrap();
    writes.write_all(b"$ ").await.unwrap();
    drop(writes);
    copied.await.unwrap();
    assert_eq!(all(stdout).await, "$ ");
    assert_eq!(all(late.stdout).await, "$ ");
    assert_eq!(late.exit.await.unwrap(), 0);
    assert!(console.attach(false).is_none(), "it has ended");
    let log = console.log.read(&LogOptions::default());
    let log: Vec<bytes::Bytes> = log.try_collect().await.unwrap();
    assert_eq!(log.concat(), b"one\n$ ");
}

#[tokio::test]
async fn who_went_away_is_not_waited_for() {
    let (console, outputs, _, mut writes) = console(Input::default());
    drop(console.attach(false).unwrap());
    let written = async {
        writes.write_all(&vec![b'x'; 4 * BEHIND]).await.unwrap();
        drop(writes);
    };
    tokio::join!(written, console.copy(outputs));
}

#[tokio::test]
async fn input_ends_with_the_first_one_where_it_is_to_be_so() {
    for once in [true, false] {
        let (console, outputs, reads, writes) = console(Input { open: true, once });
        let copied = tokio::spawn({
            let console = console.clone();
            async move { console.copy(outputs).await }
        });
        let attached = console.attach(true).unwrap();
        let exit = tokio::spawn(attached.exit);
        let mut stdin = attached.stdin.unwrap();
        stdin.write_all(b"in").await.unwrap();
        drop(stdin);
        if once {
            assert_eq!(all(reads).await, "in");
            drop(writes);
            copied.await.unwrap();
            assert_eq!(exit.await.unwrap().unwrap(), 0);
        } else {
            // The attachment is over, the container is not.
            assert_eq!(exit.await.unwrap().unwrap(), 0);
            assert_eq!(all(attached.stdout).await, "");
            assert!(console.attach(true).unwrap().stdin.is_some());
            copied.abort();
        }
    }
}

#[tokio::test]
async fn without_input_there_is_none_to_attach_to() {
    let (console, _outputs, _, _writes) = console(Input::default());
    assert!(console.attach(true).unwrap().stdin.is_none());
}
