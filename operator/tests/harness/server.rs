//! etcd and kube-apiserver, and nothing else of Kubernetes: no controller makes pods, no garbage is collected. What tests need
//! of that they write themselves.
//!
//! The programs are in the folder `KUBEBUILDER_ASSETS`, as for other operators' tests, or in the `PATH`.

use std::fs::File;
use std::io::Write;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};
use std::{env, fs, thread};

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::PostParams;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client, Config};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    SanType,
};
use serde_json::json;

use crate::guardian;
use crate::scratch::{Scratch, free_port};

/// Time that it has to start on a machine that does other things too.
const START: Duration = Duration::from_secs(60);

/// A running API server with our CRD.
pub(crate) struct Server {
    scratch: Scratch,
    children: Vec<Child>,
    url: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Server {
    /// The one of this process, started at its first use; `None`, said loudly, where its programs are missing.
    pub(crate) fn shared() -> Option<&'static Self> {
        static SERVER: OnceLock<Option<Server>> = OnceLock::new();
        let server = SERVER.get_or_init(|| {
            let found = (program("etcd"), program("kube-apiserver"));
            let (Some(etcd), Some(apiserver)) = found else {
                // Not by a macro: this has to be seen although the test passes.
                writeln!(
                    std::io::stderr(),
                    "SKIPPED: the operator against a Kubernetes API server: no etcd and kube-apiserver in KUBEBUILDER_ASSETS or PATH"
                )
                .ok();
                return None;
            };
            // Other threads take ports too: another attempt takes others.
            (0..3).find_map(|_| Self::start(&etcd, &apiserver)).or_else(|| {
                panic!("kube-apiserver does not start")
            })
        });
        server.as_ref()
    }

    fn start(etcd: &Path, apiserver: &Path) -> Option<Self> {
        let scratch = Scratch::new("apiserver");
        let key = KeyPair::generate().expect("there are random numbers");
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "tests");
        let ca = params.self_signed(&key).expect("a plain certificate");
        let port = free_port();
        let mut server = Self {
            url: format!("https://127.0.0.1:{port}"),
            issuer: Issuer::new(params, key),
            children: Vec::new(),
            scratch,
        };
        let accounts = KeyPair::generate().expect("there are random numbers");
        server.write("ca.crt", &ca.pem());
        server.write("sa.key", &accounts.serialize_pem());
        server.write("sa.pub", &accounts.public_key_pem());
        server.certificate("apiserver", None, &[]);
        server.spawn(etcd, &server.etcd_args());
        server.spawn(apiserver, &server.apiserver_args(port));
        if server.prepare() {
            return Some(server);
        }
        for log in ["etcd.log", "kube-apiserver.log"] {
            let text = fs::read_to_string(server.scratch.path().join(log)).unwrap_or_default();
            let lines: Vec<_> = text.lines().collect();
            let last = &lines[lines.len().saturating_sub(10)..];
            eprintln!("--- {log}:\n{}", last.join("\n"));
        }
        None
    }

    fn etcd_args(&self) -> Vec<String> {
        let dir = self.scratch.path().display();
        vec![
            format!("--data-dir={dir}/etcd"),
            format!("--listen-client-urls=unix://{dir}/etcd.sock:0"),
            // Nobody asks it where it is.
            "--advertise-client-urls=http://127.0.0.1:0".to_owned(),
            "--listen-peer-urls=http://127.0.0.1:0".to_owned(),
            "--unsafe-no-fsync".to_owned(),
            "--log-level=error".to_owned(),
        ]
    }

    fn apiserver_args(&self, port: u16) -> Vec<String> {
        let dir = self.scratch.path().display();
        vec![
            format!("--etcd-servers=unix://{dir}/etcd.sock:0"),
            "--bind-address=127.0.0.1".to_owned(),
            format!("--secure-port={port}"),
            format!("--cert-dir={dir}"),
            format!("--tls-cert-file={dir}/apiserver.crt"),
            format!("--tls-private-key-file={dir}/apiserver.key"),
            format!("--client-ca-file={dir}/ca.crt"),
            format!("--service-account-key-file={dir}/sa.pub"),
            format!("--service-account-signing-key-file={dir}/sa.key"),
            "--service-account-issuer=https://kubernetes.default.svc".to_owned(),
            "--service-cluster-ip-range=10.0.0.0/16".to_owned(),
            "--authorization-mode=RBAC".to_owned(),
            // Nobody makes the accounts that it asks for.
            "--disable-admission-plugins=ServiceAccount".to_owned(),
            "--endpoint-reconciler-type=none".to_owned(),
            "--allow-privileged=true".to_owned(),
        ]
    }

    fn spawn(&mut self, program: &Path, args: &[String]) {
        let name = program
            .file_name()
            .expect("a program has a name")
            .display()
            .to_string();
        let log = File::create(self.scratch.path().join(format!("{name}.log")))
            .expect("the folder is ours");
        let child = Command::new(program)
            .args(args)
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a file can be cloned"))
            .stderr(log)
            .spawn()
            .unwrap_or_else(|error| panic!("failed to start {}: {error}", program.display()));
        guardian::watch_process(child.id());
        self.children.push(child);
    }

    /// Waits until it answers, and gives it our CRD; false when it ended before that.
    fn prepare(&mut self) -> bool {
        let config = self.kubeconfig("admin", &["system:masters"]);
        let children = &mut self.children;
        // Tests have runtimes of their own, and this one is gone before theirs use what it made.
        thread::scope(|scope| {
            let prepared = scope.spawn(|| {
                let runtime = tokio::runtime::Builder::new_current_thread()
                    .enable_all()
                    .build()
                    .expect("a runtime can be made");
                runtime.block_on(async {
                    let client = client(&config).await;
                    let end = Instant::now() + START;
                    loop {
                        let ready = hyper::Request::get("/readyz").body(Vec::new());
                        let asked = client.request_text(ready.expect("it is a request"));
                        if matches!(
                            tokio::time::timeout(Duration::from_secs(1), asked).await,
                            Ok(Ok(_))
                        ) {
                            break;
                        }
                        let ended = children
                            .iter_mut()
                            .any(|child| !matches!(child.try_wait(), Ok(None)));
                        if ended || Instant::now() > end {
                            return false;
                        }
                        tokio::time::sleep(Duration::from_millis(50)).await;
                    }
                    define(&client).await;
                    true
                })
            });
            prepared.join().expect("it does not panic")
        })
    }

    /// Writes a kubeconfig for this user and returns where it is.
    pub(crate) fn kubeconfig(&self, user: &str, groups: &[&str]) -> PathBuf {
        let name = user.replace([':', '/'], "-");
        self.certificate(&name, Some(user), groups);
        let dir = self.scratch.path();
        let config = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "tests",
            "clusters": [{"name": "tests", "cluster": {"server": self.url, "certificate-authority": dir.join("ca.crt")}}],
            "users": [{"name": "tests", "user": {
                "client-certificate": dir.join(format!("{name}.crt")), "client-key": dir.join(format!("{name}.key")),
            }}],
            "contexts": [{"name": "tests", "context": {"cluster": "tests", "user": "tests"}}],
        });
        self.write(&format!("{name}.kubeconfig"), &config.to_string())
    }

    /// Its folder, which goes when it goes.
    pub(crate) fn folder(&self) -> &Path {
        self.scratch.path()
    }

    /// A certificate of a user, or of the server itself, and its key.
    fn certificate(&self, name: &str, user: Option<&str>, groups: &[&str]) {
        let mut params = CertificateParams::default();
        params
            .distinguished_name
            .push(DnType::CommonName, user.unwrap_or("kube-apiserver"));
        for group in groups {
            params
                .distinguished_name
                .push(DnType::OrganizationName, *group);
        }
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        if user.is_none() {
            params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
            params.subject_alt_names = vec![SanType::IpAddress(IpAddr::V4(Ipv4Addr::LOCALHOST))];
        }
        let key = KeyPair::generate().expect("there are random numbers");
        let signed = params
            .signed_by(&key, &self.issuer)
            .expect("names of ours can stand in it");
        self.write(&format!("{name}.crt"), &signed.pem());
        self.write(&format!("{name}.key"), &key.serialize_pem());
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.scratch.path().join(name);
        fs::write(&path, text).expect("the folder is ours");
        path
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        for child in &mut self.children {
            child.kill().ok();
            child.wait().ok();
            guardian::forget_process(child.id());
        }
    }
}

/// A client for the kubeconfig.
pub(crate) async fn client(kubeconfig: &Path) -> Client {
    let config = Kubeconfig::read_from(kubeconfig).expect("it was written just now");
    let config = Config::from_custom_kubeconfig(config, &KubeConfigOptions::default()).await;
    Client::try_from(config.expect("it is complete")).expect("its certificates are good")
}

async fn define(client: &Client) {
    let crds: Api<CustomResourceDefinition> = Api::all(client.clone());
    let crd = crds
        .create(&PostParams::default(), &pgdog_operator_api::crd())
        .await
        .expect("the API server takes our CRD");
    let name = crd.metadata.name.expect("it has one");
    let end = Instant::now() + START;
    loop {
        let status = crds.get(&name).await.expect("it is there").status;
        let conditions = status
            .and_then(|status| status.conditions)
            .unwrap_or_default();
        if conditions
            .iter()
            .any(|c| c.type_ == "Established" && c.status == "True")
        {
            return;
        }
        assert!(
            Instant::now() < end,
            "our CRD is not established: {conditions:?}"
        );
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// A program of `KUBEBUILDER_ASSETS`, else of the `PATH`.
pub(crate) fn program(name: &str) -> Option<PathBuf> {
    let assets = env::var_os("KUBEBUILDER_ASSETS").map(PathBuf::from);
    let path = env::var_os("PATH").unwrap_or_default();
    let folders = assets.into_iter().chain(env::split_paths(&path));
    folders
        .map(|folder| folder.join(name))
        .find(|path| path.is_file())
}
