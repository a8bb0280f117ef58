//! The server: its listeners, its clients, and what a monitor asks of it.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::SystemTime;

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};

use crate::ui::keymap::Keymap;
use crate::ui::{ConsoleKind, Cursor, Display, DisplayListener, InputEvent, Leds, Rect};

use super::auth::{CHALLENGE, Password};
use super::client::{Client, Stage};
use super::listen::{Endpoint, Listening, Stream};
use super::message::PowerAction;
use super::screen::Screen;
use super::spec::{SharePolicy, Spec};
use super::{session, writer};

/// Stack of a client's threads: they hold no large arrays and do not recurse.
const STACK_BYTES: usize = 256 << 10;

/// A client as monitors and events tell of it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ClientInfo {
    /// Its own address.
    pub peer: Endpoint,
    /// The address of ours that it connected to.
    pub local: Endpoint,
}

/// A server as `info vnc` and `query-vnc` tell of it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Info {
    /// Its name.
    pub id: String,
    /// QEMU's word for how clients prove themselves: "none" or "vnc".
    pub auth: &'static str,
    /// Where it listens.
    pub listeners: Vec<Endpoint>,
    /// Who is connected.
    pub clients: Vec<ClientInfo>,
}

/// Hears of what clients do. Called on their threads with no lock held.
pub trait Observer: Send + Sync {
    /// A client connected (`VNC_CONNECTED`).
    fn connected(&self, _client: &ClientInfo) {}
    /// A client is through the handshake (`VNC_INITIALIZED`).
    fn initialized(&self, _client: &ClientInfo) {}
    /// A client is gone (`VNC_DISCONNECTED`).
    fn disconnected(&self, _client: &ClientInfo) {}
    /// The first client watches: the display has to be refreshed from now on.
    fn watched(&self) {}
    /// A viewer asks for this; only with `power-control=on`.
    fn power(&self, _action: PowerAction) {}
}

/// An observer that does not care.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoObserver;

impl Observer for NoObserver {}

/// A password that cannot be set; the text is QEMU's.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("If you want use passwords please enable password auth using '-vnc ${{dpy}},password'.")]
pub struct NoPasswordAuth;

/// What the server needs to know of the machine.
pub struct Settings {
    /// The desktop's name, see [`desktop_name`].
    pub desktop_name: String,
    /// `-k`.
    pub keymap: Keymap,
    /// Hears of clients.
    pub observer: Arc<dyn Observer>,
}

/// QEMU's desktop name for a guest (`-name`).
#[must_use]
pub fn desktop_name(guest: Option<&str>) -> String {
    match guest {
        Some(guest) => format!("QEMU ({guest})"),
        None => "QEMU".to_owned(),
    }
}

/// Whether a client may come in.
pub(super) enum Admission {
    /// It may; the picture has this size.
    Welcome((u32, u32)),
    Refused(&'static str),
}

/// A VNC server. Lock order: the display's surface, the screen, the list of clients, a client.
pub struct Server {
    spec: Spec,
    endpoints: Vec<Endpoint>,
    /// The accepting thread; it owns the sockets.
    acceptor: Mutex<Option<thread::JoinHandle<()>>>,
    display: Arc<Display>,
    keymap: Arc<Keymap>,
    observer: Arc<dyn Observer>,
    desktop_name: Mutex<String>,
    password: Mutex<Password>,
    leds: Mutex<Option<Leds>>,
    cursor: Mutex<Option<Arc<Cursor>>>,
    screen: Mutex<Screen>,
    clients: Mutex<Vec<Arc<Client>>>,
    /// Clients through the handshake.
    watching: AtomicUsize,
    /// Readable once the server is to stop.
    stop: OwnedFd,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Every guarded value stays whole if a holder panics.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Server {
    /// Serves `display` at the sockets of `listening`, on threads of its own, and registers with the display.
    ///
    /// # Errors
    ///
    /// If the host has no thread or descriptor left.
    pub fn start(listening: Listening, display: &Arc<Display>, settings: Settings) -> io::Result<Arc<Self>> {
        let server = Arc::new(Self {
            spec: listening.spec().clone(),
            endpoints: listening.endpoints().to_vec(),
            acceptor: Mutex::default(),
            display: Arc::clone(display),
            keymap: Arc::new(settings.keymap),
            observer: settings.observer,
            desktop_name: Mutex::new(settings.desktop_name),
            password: Mutex::default(),
            leds: Mutex::default(),
            cursor: Mutex::default(),
            screen: Mutex::new(Screen::empty()),
            clients: Mutex::default(),
            watching: AtomicUsize::new(0),
            stop: eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?,
        });
        let accepting = Arc::clone(&server);
        let thread = thread::Builder::new().name("vnc-accept".to_owned()).stack_size(STACK_BYTES);
        let acceptor = thread.spawn(move || accepting.accept_all(&listening))?;
        *lock(&server.acceptor) = Some(acceptor);
        display.add_listener(Arc::clone(&server) as Arc<dyn DisplayListener>);
        Ok(server)
    }

    /// What monitors tell of it.
    #[must_use]
    pub fn info(&self) -> Info {
        Info {
            id: self.spec().id.clone(),
            auth: if self.needs_password() { "vnc" } else { "none" },
            listeners: self.endpoints.clone(),
            clients: lock(&self.clients).iter().map(|client| info(client)).collect(),
        }
    }

    /// Sets the password that clients have to know; with `None` no client comes in.
    ///
    /// # Errors
    ///
    /// If the server was started without `password=on`.
    pub fn set_password(&self, password: Option<&str>) -> Result<(), NoPasswordAuth> {
        if !self.needs_password() {
            return Err(NoPasswordAuth);
        }
        lock(&self.password).set(password);
        Ok(())
    }

    /// When the password stops being good; `None`: never.
    pub fn expire_password(&self, at: Option<SystemTime>) {
        lock(&self.password).expire_at(at);
    }

    /// Renames the desktop, also for clients that are there.
    pub fn set_desktop_name(&self, name: &str) {
        name.clone_into(&mut lock(&self.desktop_name));
        self.for_watchers(|client| client.notify(|notices, features| notices.desktop_name |= features.desktop_name));
    }

    /// The guest set its keyboard's lights.
    pub fn set_leds(&self, leds: Leds) {
        *lock(&self.leds) = Some(leds);
        self.for_watchers(|client| client.notify(|notices, features| notices.led_state |= features.led_state));
    }

    /// Disconnects all clients.
    pub fn disconnect_all(&self) {
        for client in lock(&self.clients).iter() {
            client.close();
        }
    }

    /// Closes the sockets, removing those in the file system, and disconnects all clients. Their threads end on their
    /// own.
    pub fn stop(&self) {
        // A counter that is full is as readable as one can be.
        let _ = rustix::io::write(&self.stop, &1_u64.to_ne_bytes());
        let acceptor = lock(&self.acceptor).take();
        if let Some(acceptor) = acceptor {
            // It ends by itself, whatever happened to it.
            let _ = acceptor.join();
        }
        self.disconnect_all();
    }

    /// Its options.
    #[must_use]
    pub fn spec(&self) -> &Spec {
        &self.spec
    }

    pub(super) fn needs_password(&self) -> bool {
        self.spec().password
    }

    pub(super) fn accepts(&self, challenge: [u8; CHALLENGE], answer: [u8; CHALLENGE], now: SystemTime) -> bool {
        lock(&self.password).accepts(challenge, answer, now)
    }

    pub(super) fn desktop_name(&self) -> String {
        lock(&self.desktop_name).clone()
    }

    pub(super) fn keymap(&self) -> Arc<Keymap> {
        Arc::clone(&self.keymap)
    }

    pub(super) fn leds(&self) -> Option<Leds> {
        *lock(&self.leds)
    }

    pub(super) fn cursor(&self) -> Option<Arc<Cursor>> {
        lock(&self.cursor).clone()
    }

    pub(super) fn is_absolute(&self) -> bool {
        self.display.is_absolute()
    }

    pub(super) fn screen_size(&self) -> (u32, u32) {
        lock(&self.screen).size()
    }

    pub(super) fn copy_pixels(&self, rect: Rect, pixels: &mut Vec<u32>) {
        lock(&self.screen).copy(rect, pixels);
    }

    /// Whether keys go to a text console of ours.
    pub(super) fn shows_text(&self) -> bool {
        self.display.console(self.display.shown()).is_some_and(|console| console.kind() == ConsoleKind::Text)
    }

    pub(super) fn input(&self, event: InputEvent) {
        self.display.input(event);
    }

    pub(super) fn set_ui_size(&self, width: u32, height: u32) {
        if let Some(console) = self.display.console(self.display.shown()) {
            console.set_ui_size(width, height);
        }
    }

    pub(super) fn power(&self, action: PowerAction) {
        if self.spec().power_control {
            self.observer.power(action);
        }
    }

    pub(super) fn set_encodings(&self, client: &Client, numbers: &[i32]) {
        let spec = self.spec();
        let screen = lock(&self.screen);
        client.set_encodings(numbers, screen.size(), spec.lossy, spec.power_control);
    }

    fn for_watchers(&self, act: impl Fn(&Client)) {
        for client in lock(&self.clients).iter() {
            if matches!(client.stage(), Stage::Watching { .. }) {
                act(client);
            }
        }
    }

    /// The accepting thread.
    fn accept_all(self: &Arc<Self>, listening: &Listening) {
        let sockets = listening.fds().count();
        loop {
            let mut fds: Vec<PollFd<'_>> =
                listening.fds().map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN)).collect();
            fds.push(PollFd::from_borrowed_fd(self.stop.as_fd(), PollFlags::IN));
            match poll(&mut fds, None) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(_) => return,
            }
            if fds.last().is_some_and(|stop| !stop.revents().is_empty()) {
                return;
            }
            let ready: Vec<usize> = (0..sockets).filter(|index| !fds[*index].revents().is_empty()).collect();
            for index in ready {
                match listening.accept(index) {
                    Ok((stream, peer)) => {
                        self.add(stream, peer, listening.endpoints()[index].clone());
                    }
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    // No descriptors left, most likely: do not ask again at once.
                    Err(_) => self.wait_for_stop(),
                }
            }
        }
    }

    /// Waits a tenth of a second, or until the server stops.
    fn wait_for_stop(&self) {
        let mut fds = [PollFd::from_borrowed_fd(self.stop.as_fd(), PollFlags::IN)];
        // The caller asks again anyway.
        let _ = poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 100_000_000 }));
    }

    /// A new client: it gets a thread, and the oldest one that is stuck on its way in loses its place.
    fn add(self: &Arc<Self>, stream: Stream, peer: Endpoint, local: Endpoint) {
        let client = Arc::new(Client::new(stream, peer, local));
        {
            let mut clients = lock(&self.clients);
            let connecting = |client: &&Arc<Client>| client.stage() == Stage::Connecting;
            if clients.iter().filter(connecting).count() >= self.spec().connections.max(1)
                && let Some(oldest) = clients.iter().find(connecting)
            {
                oldest.close();
            }
            clients.push(Arc::clone(&client));
        }
        let (server, served) = (Arc::clone(self), Arc::clone(&client));
        let thread = thread::Builder::new().name("vnc-read".to_owned()).stack_size(STACK_BYTES);
        if thread.spawn(move || server.serve(&served)).is_err() {
            self.remove(&client);
        }
    }

    /// A client's reading thread.
    fn serve(self: &Arc<Self>, client: &Arc<Client>) {
        self.observer.connected(&info(client));
        let end = session::run(self, client);
        log::debug!(target: "vnc", "client {}:{}: {end}", client.peer.host(), client.peer.service());
        self.remove(client);
        self.observer.disconnected(&info(client));
    }

    fn remove(&self, client: &Arc<Client>) {
        client.close();
        lock(&self.clients).retain(|other| !Arc::ptr_eq(other, client));
        if client.stop_counting() {
            self.unwatch();
        }
    }

    /// Applies the sharing policy to a client that sent ClientInit.
    pub(super) fn admit(&self, client: &Arc<Client>, shared: bool) -> Admission {
        {
            let clients = lock(&self.clients);
            let watchers = || clients.iter().filter(|other| matches!(other.stage(), Stage::Watching { .. }));
            match self.spec().share {
                SharePolicy::Ignore => {}
                SharePolicy::ForceShared if !shared => return Admission::Refused("this server is shared"),
                SharePolicy::ForceShared => {}
                SharePolicy::AllowExclusive if shared => {
                    if watchers().any(|other| other.stage() == Stage::Watching { exclusive: true }) {
                        return Admission::Refused("another client wants to be alone");
                    }
                }
                SharePolicy::AllowExclusive => watchers().for_each(|other| other.close()),
            }
            if watchers().count() >= self.spec().connections {
                return Admission::Refused("too many clients");
            }
        }
        let is_first = self.watching.fetch_add(1, Ordering::SeqCst) == 0;
        // The surface may be as old as the last client.
        self.display.refresh();
        let size = self.display.with_surface(|surface| {
            let mut screen = lock(&self.screen);
            if is_first {
                screen.replace(surface);
            }
            client.watch(!shared, screen.size()).then(|| screen.size())
        });
        self.display.wake();
        if is_first {
            self.observer.watched();
        }
        match size {
            Some(size) => Admission::Welcome(size),
            None => {
                self.unwatch();
                Admission::Refused("closed")
            }
        }
    }

    fn unwatch(&self) {
        let mut screen = lock(&self.screen);
        if self.watching.fetch_sub(1, Ordering::SeqCst) == 1 {
            *screen = Screen::empty();
        }
    }

    /// A client is through the handshake: it gets its sending thread.
    pub(super) fn initialized(self: &Arc<Self>, client: &Arc<Client>) -> io::Result<()> {
        let (server, sender) = (Arc::clone(self), Arc::clone(client));
        let thread = thread::Builder::new().name("vnc-write".to_owned()).stack_size(STACK_BYTES);
        thread.spawn(move || writer::run(&server, &sender))?;
        self.observer.initialized(&info(client));
        Ok(())
    }

    /// Brings the screen in line with the surface and tells the clients. `rects`: only these parts changed.
    fn take_over(&self, rects: Option<&[Rect]>) {
        if self.watching.load(Ordering::SeqCst) == 0 {
            return;
        }
        self.display.with_surface(|surface| {
            let mut screen = lock(&self.screen);
            let size = (surface.width(), surface.height());
            match rects.filter(|_| screen.size() == size) {
                Some(rects) => {
                    let changed = screen.update(surface, rects);
                    if !changed.is_empty() {
                        self.for_watchers(|client| client.mark(&changed));
                    }
                }
                None => {
                    screen.replace(surface);
                    self.for_watchers(|client| client.resized(size));
                }
            }
        });
    }
}

impl DisplayListener for Server {
    fn updated(&self, rects: &[Rect]) {
        self.take_over(Some(rects));
    }

    fn resized(&self) {
        self.take_over(None);
    }

    fn cursor_changed(&self, cursor: Option<&Cursor>) {
        *lock(&self.cursor) = cursor.map(|cursor| Arc::new(cursor.clone()));
        self.for_watchers(|client| {
            client.notify(|notices, features| notices.cursor |= features.rich_cursor || features.alpha_cursor);
        });
    }

    fn pointer_mode_changed(&self, _absolute: bool) {
        self.for_watchers(|client| client.notify(|notices, features| notices.pointer_mode |= features.pointer_mode));
    }

    fn leds_changed(&self, leds: Leds) {
        self.set_leds(leds);
    }

    fn is_watching(&self) -> bool {
        self.watching.load(Ordering::SeqCst) > 0
    }
}

impl std::fmt::Debug for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Server({})", self.spec().id)
    }
}

fn info(client: &Client) -> ClientInfo {
    ClientInfo { peer: client.peer.clone(), local: client.local.clone() }
}
