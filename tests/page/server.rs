//! A node's admin pages over a cluster that the test describes, and that changes when the test says so.
//!
//! Invariant: listens on loopback only; ends with its handle.

use std::net::TcpListener;
use std::sync::{Arc, Mutex, mpsc};
use std::time::{SystemTime, UNIX_EPOCH};

use actix_web::dev::ServerHandle;
use actix_web::web::Data;
use actix_web::{App, HttpServer};
use futures::future::{BoxFuture, FutureExt};
use holdfast::admin::admin_http::{self, AdminState};
use holdfast::admin::admin_state::{Masters, ViewSource};
use holdfast::admin::hub_service::Hub;
use holdfast::admin::readiness::Readiness;
use holdfast::admin::view::ClusterView;
use holdfast::metrics::Metrics;
use holdfast::net::control::{Answered, Ask, ClusterState};

use crate::fixture::about;

/// What the cluster is like at a time (Unix milliseconds).
pub type Scene = Arc<dyn Fn(i64) -> ClusterState + Send + Sync>;

pub struct Server {
    pub url: String,
    pub readiness: Readiness,
    scene: Arc<Mutex<Scene>>,
    handle: ServerHandle,
}

struct Agreeable;

impl Masters for Agreeable {
    fn ask(&self, _: Ask) -> BoxFuture<'static, Answered> {
        std::future::ready(Answered::Done).boxed()
    }
}

pub fn now_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_millis() as i64
}

impl Server {
    pub fn start(partitions: u16, scene: Scene) -> Self {
        let scene = Arc::new(Mutex::new(scene));
        let current = scene.clone();
        let view: ViewSource = Arc::new(move || {
            let now_ms = now_ms();
            let scene = current.lock().expect("a scene").clone();
            std::future::ready(ClusterView::of(&scene(now_ms), about(partitions, now_ms))).boxed()
        });
        let readiness = Readiness::default();
        readiness.set_running();
        let hub = Hub::new(view.clone(), readiness.clone(), 4);
        let (metrics, masters) = (Metrics::default(), Arc::new(Agreeable));
        let state = Data::new(AdminState { readiness: readiness.clone(), metrics, view, hub, masters });
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let url = format!("http://{}/", listener.local_addr().expect("bound"));
        let (handles, started) = mpsc::channel();
        std::thread::spawn(move || {
            actix_web::rt::System::new().block_on(async move {
                let app = move || App::new().app_data(state.clone()).configure(admin_http::routes);
                let server = HttpServer::new(app).workers(1).shutdown_timeout(5).disable_signals();
                let server = server.listen(listener).expect("listening").run();
                handles.send(server.handle()).expect("the test waits for it");
                server.await
            })
        });
        Self { url, readiness, scene, handle: started.recv().expect("the server starts") }
    }

    pub fn play(&self, scene: Scene) {
        *self.scene.lock().expect("a scene") = scene;
    }

    /// Ends as a node does, and waits for open requests.
    pub fn stop(self) {
        self.readiness.set_stopping();
        futures::executor::block_on(self.handle.stop(true));
    }
}
