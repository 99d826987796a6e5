//! A PostgreSQL server for tests: one of their own from the system's packages, as an unprivileged user in a temporary
//! directory, or the one that `MINI_TORRENT_TEST_POSTGRES_URL` names. It is gone with the process that started it,
//! however that ends. The tracker's own tests include this file, too.

use std::io::{BufRead, BufReader, Write};
use std::net::{IpAddr, TcpListener};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, OnceLock};

const URL: &str = "MINI_TORRENT_TEST_POSTGRES_URL";
const MISSING: &str = "no PostgreSQL here; install Debian's postgresql or set MINI_TORRENT_TEST_POSTGRES_URL";
/// Why a test of TLS is skipped.
pub const NO_CERTIFICATES: &str = "no openssl here to make certificates with";
const SUPERUSER: &str = "mini_torrent";

/// Obeys lines on its standard input, until that ends with the process that tests: then server and files go.
/// Names are ordered as people do, where the server can, so that whoever relies on the order of bytes says so.
const KEEPER: &str = r#"
bin=$1 user=$2 host=$3
dir=$(mktemp -d "${TMPDIR:-/tmp}/mini-torrent-postgres.XXXXXX") && cd "$dir" || exit 1
make() { "$bin/initdb" -D data -U "$user" -A trust -E UTF8 --no-sync "$@" >>log 2>&1; }
make --locale=C --locale-provider=icu --icu-locale=en || { rm -rf data; make --locale=C; } || { cat log; exit 1; }
echo "$dir"
while read -r what port; do
    case $what in
    start) "$bin/pg_ctl" -D data -l log -w -o "-F -p $port -k $dir -h $host -N 300" start >/dev/null 2>&1 ;;
    *) "$bin/pg_ctl" -D data -m "$what" -w stop >/dev/null 2>&1 ;;
    esac && echo done || { tail -5 log | tr '\n' ' '; echo; }
done
"$bin/pg_ctl" -D data -m immediate stop >/dev/null 2>&1
rm -rf "$dir"
"#;

/// A running server.
pub struct Server {
    /// With `{}` where the name of a database belongs.
    url: String,
    keeper: Option<Mutex<Keeper>>,
}

struct Keeper {
    _child: Child,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
    port: u16,
    directory: PathBuf,
}

/// How a server is ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stop {
    /// It ends its connections in good order.
    Fast,
    /// As by a power cut.
    Immediate,
}

/// An empty database, which goes with this value.
pub struct Database {
    server: &'static Server,
    name: String,
    /// Where it is.
    pub url: String,
}

/// The server that the tests of this process share, if there can be one; else it says that they are skipped.
pub fn shared() -> Option<&'static Server> {
    static SHARED: OnceLock<Option<Server>> = OnceLock::new();
    let shared = SHARED.get_or_init(|| match std::env::var(URL) {
        Ok(url) => Some(Server { url: with_database(&url), keeper: None }),
        Err(_) => Server::start(),
    });
    if shared.is_none() {
        skipped(MISSING);
    }
    shared.as_ref()
}

/// A server that one test has to itself, and may stop.
pub fn own() -> Option<&'static Server> {
    let server = Server::start();
    if server.is_none() {
        skipped(MISSING);
    }
    server.map(|server| &*Box::leak(Box::new(server)))
}

/// Says that a test is skipped, around the test harness, which keeps what passing tests say to itself.
pub fn skipped(why: &str) {
    let name = std::thread::current().name().unwrap_or_default().to_owned();
    let _ = std::io::stderr().write_all(format!("SKIPPED {name}: {why}\n").as_bytes());
}

/// A server on another host than this program, which speaks TLS alone. It goes with this value.
pub struct RemoteServer {
    /// Its only database, with the file of the authority that proves its name.
    pub url: String,
    _keeper: Keeper,
}

/// An authority as PEM, and a certificate of it for a server, with its key.
pub struct Certificates {
    /// Who signs.
    pub authority: String,
    /// What the server shows.
    pub certificate: String,
    /// The certificate's key.
    pub key: String,
}

impl Certificates {
    /// New ones for a server with this address; `None` when nothing here can make them.
    pub fn of(address: IpAddr) -> Option<Self> {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let new_key = "-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes";
        for arguments in [
            format!("req -x509 {new_key} -keyout ca.key -out ca.pem -days 2 -subj /CN=authority"),
            format!(
                "req {new_key} -keyout server.key -out server.csr -subj /CN=db -addext subjectAltName=IP:{address}"
            ),
            "x509 -req -in server.csr -CA ca.pem -CAkey ca.key -days 2 -copy_extensions copy -out server.crt".into(),
        ] {
            let mut command = Command::new("openssl");
            let made = command.args(arguments.split(' ')).current_dir(directory.path()).output().ok()?;
            assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        }
        let read = |name: &str| std::fs::read_to_string(directory.path().join(name)).expect("it was made");
        Some(Self { authority: read("ca.pem"), certificate: read("server.crt"), key: read("server.key") })
    }
}

impl RemoteServer {
    /// Starts a server on the host that the command `enter` runs a program on, at this address of it. `None` when there
    /// can be none here, and then it says so. The authority's certificate is written to `authority`.
    pub fn start(enter: &[&str], address: IpAddr, authority: &Path) -> Option<Self> {
        let Some(programs) = programs() else {
            skipped(MISSING);
            return None;
        };
        let Some(certificates) = Certificates::of(address) else {
            skipped(NO_CERTIFICATES);
            return None;
        };
        let mut command = Command::new(enter[0]);
        command.args(&enter[1..]);
        // Only root may enter, and the server refuses to be root.
        if let Some((user, group)) = somebody_else() {
            command.args(["setpriv", "--clear-groups", &format!("--reuid={user}"), &format!("--regid={group}")]);
        }
        command.arg("sh");
        let mut keeper = Keeper::launch(command, &programs, &address.to_string());
        keeper.put("server.crt", certificates.certificate.as_bytes());
        keeper.put("server.key", certificates.key.as_bytes());
        keeper.append("postgresql.conf", "ssl = on\n");
        keeper.append("pg_hba.conf", "hostssl all all all trust\n");
        // Nobody else is there.
        keeper.port = 5432;
        assert_eq!(keeper.start(), "done");
        std::fs::write(authority, certificates.authority).expect("a file can be written");
        let checked = format!("sslmode=verify-full&sslrootcert={}", authority.display());
        Some(Self { url: format!("postgres://{SUPERUSER}@{address}:5432/postgres?{checked}"), _keeper: keeper })
    }
}

impl Server {
    fn start() -> Option<Self> {
        let mut command = Command::new("sh");
        if let Some((user, group)) = somebody_else() {
            command.uid(user).gid(group);
        }
        let mut keeper = Keeper::launch(command, &programs()?, "127.0.0.1");
        let started = (0..5).any(|_| {
            let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
            keeper.port = listener.local_addr().expect("bound").port();
            drop(listener);
            keeper.start() == "done"
        });
        assert!(started, "PostgreSQL does not start");
        let url = format!("postgres://{SUPERUSER}@127.0.0.1:{}/{{}}", keeper.port);
        Some(Self { url, keeper: Some(Mutex::new(keeper)) })
    }

    /// Makes an empty database.
    pub fn database(&'static self) -> Database {
        static N_DATABASES: AtomicU32 = AtomicU32::new(0);
        let name = format!("test_{}_{}", std::process::id(), N_DATABASES.fetch_add(1, Ordering::Relaxed));
        self.run("postgres", &format!("CREATE DATABASE {name}"));
        Database { server: self, url: self.url.replace("{}", &name), name }
    }

    /// Runs statements.
    pub fn run(&self, database: &str, sql: &str) {
        let (url, sql) = (self.url.replace("{}", database), sql.to_owned());
        // A thread of its own, for the test may be inside a runtime.
        let ran = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(async {
                let (client, connection) = tokio_postgres::connect(&url, tokio_postgres::NoTls).await?;
                let served = tokio::spawn(connection);
                client.batch_execute(&sql).await?;
                drop(client);
                let _ = served.await;
                Ok::<_, tokio_postgres::Error>(())
            })
        });
        ran.join().expect("no panic").unwrap_or_else(|error| panic!("{error:?}"));
    }

    /// Ends the server; its data stay.
    pub fn stop(&self, how: Stop) {
        let how = if how == Stop::Fast { "fast" } else { "immediate" };
        assert_eq!(self.keeper().lock().expect("no panic").obey(how), "done");
    }

    /// Starts it again where it was.
    pub fn start_again(&self) {
        assert_eq!(self.keeper().lock().expect("no panic").start(), "done");
    }

    /// Writes a file that only the server's user may read into the directory of its data.
    pub fn put(&self, name: &str, content: &[u8]) {
        self.keeper().lock().expect("no panic").put(name, content);
    }

    fn keeper(&self) -> &Mutex<Keeper> {
        self.keeper.as_ref().expect("a server of our own")
    }
}

impl Keeper {
    /// Makes a server's files by this shell; the server is to listen on `host`.
    fn launch(mut shell: Command, programs: &Path, host: &str) -> Self {
        shell.args(["-c", KEEPER, "sh"]).arg(programs).args([SUPERUSER, host]);
        shell.stdin(Stdio::piped()).stdout(Stdio::piped());
        // Ctrl-C is for the tests, and the keeper cleans up after them.
        shell.process_group(0).current_dir("/");
        let mut child = shell.spawn().expect("there is a shell");
        let (stdin, stdout) = (child.stdin.take().expect("piped"), child.stdout.take().expect("piped"));
        let mut stdout = BufReader::new(stdout);
        let directory = PathBuf::from(line(&mut stdout));
        assert!(directory.is_absolute(), "initdb failed: {}", directory.display());
        Self { _child: child, stdin, stdout, port: 0, directory }
    }

    fn put(&self, name: &str, content: &[u8]) {
        let path = self.directory.join("data").join(name);
        let owner = path.parent().expect("it has one").metadata().expect("it is there");
        std::fs::write(&path, content).expect("a file of the server");
        std::os::unix::fs::chown(&path, Some(owner.uid()), Some(owner.gid())).expect("its owner");
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).expect("its mode");
    }

    fn append(&self, name: &str, text: &str) {
        let file = std::fs::OpenOptions::new().append(true).open(self.directory.join("data").join(name));
        file.and_then(|mut file| file.write_all(text.as_bytes())).expect("a file of the server");
    }

    fn start(&mut self) -> String {
        let port = self.port;
        self.obey(&format!("start {port}"))
    }

    fn obey(&mut self, what: &str) -> String {
        writeln!(self.stdin, "{what}").expect("the keeper listens");
        line(&mut self.stdout)
    }
}

impl Database {
    /// Runs statements in it.
    pub fn run(&self, sql: &str) {
        self.server.run(&self.name, sql);
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.server.run("postgres", &format!("DROP DATABASE {} WITH (FORCE)", self.name));
        }
    }
}

fn line(from: &mut impl BufRead) -> String {
    let mut line = String::new();
    let _ = from.read_line(&mut line);
    line.trim_end().to_owned()
}

/// The URL with `{}` for the name of its database.
fn with_database(url: &str) -> String {
    let (base, query) = url.split_once('?').map_or((url, String::new()), |(base, query)| (base, format!("?{query}")));
    let host_begins = base.find("://").map_or(0, |at| at + 3);
    let host_ends = base[host_begins..].find('/').map_or(base.len(), |at| host_begins + at);
    format!("{}/{{}}{query}", &base[..host_ends])
}

/// Where `initdb` and the others are.
fn programs() -> Option<PathBuf> {
    let installed = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let mut installed: Vec<_> = installed.map(|version| version.path().join("bin")).collect();
    installed.sort();
    let path = std::env::var_os("PATH").unwrap_or_default();
    let all = installed.into_iter().rev().chain(std::env::split_paths(&path));
    all.into_iter().find(|directory| ["initdb", "pg_ctl"].iter().all(|name| directory.join(name).exists()))
}

/// Whom PostgreSQL runs as when we are root, which it refuses to be.
fn somebody_else() -> Option<(u32, u32)> {
    let is_root = std::fs::metadata("/proc/self").is_ok_and(|own| own.uid() == 0);
    let users = std::fs::read_to_string(Path::new("/etc/passwd")).unwrap_or_default();
    let numbers = |name: &str| {
        let mut fields = users.lines().find(|line| line.split(':').next() == Some(name))?.split(':').skip(2);
        Some((fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
    };
    is_root.then(|| numbers("postgres").or_else(|| numbers("nobody")).unwrap_or((65534, 65534)))
}
