//! Client messages, encoded by hand.

/// The protocol version every Postgres since 7.4 speaks.
pub const PROTOCOL_3_0: (u16, u16) = (3, 0);

/// One message from a client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// `Q`
    Query(Vec<u8>),
    /// `P`
    Parse {
        /// Statement name, empty for the unnamed one.
        name: Vec<u8>,
        /// The SQL text.
        sql: Vec<u8>,
        /// Parameter type OIDs, 0 = to be found out.
        types: Vec<u32>,
    },
    /// `B`
    Bind {
        /// Portal name, empty for the unnamed one.
        portal: Vec<u8>,
        /// Statement name, empty for the unnamed one.
        statement: Vec<u8>,
        /// Format codes of the parameters: none, one for all, or one each.
        formats: Vec<i16>,
        /// Parameter values, none = NULL.
        values: Vec<Option<Vec<u8>>>,
        /// Format codes of the result columns.
        results: Vec<i16>,
    },
    /// `D` of a statement
    DescribeStatement(Vec<u8>),
    /// `D` of a portal
    DescribePortal(Vec<u8>),
    /// `E`
    Execute {
        /// Portal name.
        portal: Vec<u8>,
        /// Most rows wanted, 0 = all.
        limit: i32,
    },
    /// `C` of a statement
    CloseStatement(Vec<u8>),
    /// `C` of a portal
    ClosePortal(Vec<u8>),
    /// `S`
    Sync,
    /// `H`
    Flush,
    /// `d`
    CopyData(Vec<u8>),
    /// `c`
    CopyDone,
    /// `f`
    CopyFail(Vec<u8>),
    /// `F`
    FunctionCall {
        /// The function's OID.
        function: u32,
        /// Argument format codes.
        formats: Vec<i16>,
        /// Argument values.
        values: Vec<Option<Vec<u8>>>,
        /// Format code of the result.
        result: i16,
    },
    /// `p`
    Password(Vec<u8>),
    /// `X`
    Terminate,
    /// The untyped first packet.
    Startup {
        /// Major and minor protocol version.
        version: (u16, u16),
        /// Names and values.
        parameters: Vec<(String, String)>,
    },
    /// Asks for TLS; answered by one byte.
    SslRequest,
    /// Asks for GSSAPI encryption; answered by one byte.
    GssRequest,
    /// Asks to cancel what another connection runs.
    CancelRequest {
        /// Process id from BackendKeyData.
        pid: i32,
        /// Secret from BackendKeyData.
        secret: Vec<u8>,
    },
    /// Bytes as they are.
    Raw(Vec<u8>),
}

impl Message {
    /// `Q` from text.
    pub fn query(sql: &str) -> Self {
        Self::Query(sql.into())
    }

    /// `P` from text, parameter types left to the server.
    pub fn parse(name: &str, sql: &str) -> Self {
        Self::Parse {
            name: name.into(),
            sql: sql.into(),
            types: Vec::new(),
        }
    }

    /// `B` of a statement to the unnamed portal, with text parameters.
    pub fn bind(statement: &str, values: &[&str]) -> Self {
        Self::Bind {
            portal: Vec::new(),
            statement: statement.into(),
            formats: Vec::new(),
            values: values.iter().map(|&value| Some(value.into())).collect(),
            results: Vec::new(),
        }
    }

    /// `E` of the unnamed portal, without limit.
    pub fn execute() -> Self {
        Self::Execute {
            portal: Vec::new(),
            limit: 0,
        }
    }

    /// A startup packet of protocol 3.0.
    pub fn startup(parameters: &[(&str, &str)]) -> Self {
        let parameters = parameters
            .iter()
            .map(|&(k, v)| (k.to_owned(), v.to_owned()))
            .collect();
        Self::Startup {
            version: PROTOCOL_3_0,
            parameters,
        }
    }

    /// Appends the encoded message.
    pub fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::Query(sql) => frame(out, b'Q', |out| text(out, sql)),
            Self::Parse { name, sql, types } => frame(out, b'P', |out| {
                text(out, name);
                text(out, sql);
                count(out, types.len());
                types.iter().for_each(|oid| out.extend(oid.to_be_bytes()));
            }),
            Self::Bind {
                portal,
                statement,
                formats,
                values,
                results,
            } => frame(out, b'B', |out| {
                text(out, portal);
                text(out, statement);
                codes(out, formats);
                optional_values(out, values);
                codes(out, results);
            }),
            Self::DescribeStatement(name) => named(out, b'D', b'S', name),
            Self::DescribePortal(name) => named(out, b'D', b'P', name),
            Self::Execute { portal, limit } => frame(out, b'E', |out| {
                text(out, portal);
                out.extend(limit.to_be_bytes());
            }),
            Self::CloseStatement(name) => named(out, b'C', b'S', name),
            Self::ClosePortal(name) => named(out, b'C', b'P', name),
            Self::Sync => frame(out, b'S', |_| {}),
            Self::Flush => frame(out, b'H', |_| {}),
            Self::CopyData(data) => frame(out, b'd', |out| out.extend(data)),
            Self::CopyDone => frame(out, b'c', |_| {}),
            Self::CopyFail(reason) => frame(out, b'f', |out| text(out, reason)),
            Self::FunctionCall {
                function,
                formats,
                values,
                result,
            } => frame(out, b'F', |out| {
                out.extend(function.to_be_bytes());
                codes(out, formats);
                optional_values(out, values);
                out.extend(result.to_be_bytes());
            }),
            Self::Password(data) => frame(out, b'p', |out| out.extend(data)),
            Self::Terminate => frame(out, b'X', |_| {}),
            Self::Startup {
                version: (major, minor),
                parameters,
            } => sized(out, |out| {
                out.extend(major.to_be_bytes());
                out.extend(minor.to_be_bytes());
                for (name, value) in parameters {
                    text(out, name.as_bytes());
                    text(out, value.as_bytes());
                }
                out.push(0);
            }),
            Self::SslRequest => request(out, 5679, &[]),
            Self::GssRequest => request(out, 5680, &[]),
            Self::CancelRequest { pid, secret } => {
                let body: Vec<u8> = pid.to_be_bytes().iter().chain(secret).copied().collect();
                request(out, 5678, &body);
            }
            Self::Raw(bytes) => out.extend(bytes),
        }
    }

    /// How many ReadyForQuery (or, for `X`, none) this message asks for.
    pub fn asks_ready(&self) -> bool {
        matches!(
            self,
            Self::Query(_) | Self::Sync | Self::FunctionCall { .. } | Self::Startup { .. }
        )
    }
}

/// Encodes messages one after another.
pub fn encode_all(messages: &[Message]) -> Vec<u8> {
    let mut out = Vec::new();
    messages.iter().for_each(|message| message.encode(&mut out));
    out
}

fn frame(out: &mut Vec<u8>, tag: u8, body: impl FnOnce(&mut Vec<u8>)) {
    out.push(tag);
    sized(out, body);
}

/// The body behind its own length, which counts itself.
fn sized(out: &mut Vec<u8>, body: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    out.extend([0; 4]);
    body(out);
    let length = u32::try_from(out.len() - start).expect("test messages are below 4 GB");
    out[start..start + 4].copy_from_slice(&length.to_be_bytes());
}

fn request(out: &mut Vec<u8>, code: u16, body: &[u8]) {
    sized(out, |out| {
        out.extend(1234_u16.to_be_bytes());
        out.extend(code.to_be_bytes());
        out.extend(body);
    });
}

fn text(out: &mut Vec<u8>, value: &[u8]) {
    out.extend(value);
    out.push(0);
}

fn count(out: &mut Vec<u8>, len: usize) {
    out.extend(
        u16::try_from(len)
            .expect("counts are 16 bits on the wire")
            .to_be_bytes(),
    );
}

fn codes(out: &mut Vec<u8>, codes: &[i16]) {
    count(out, codes.len());
    codes.iter().for_each(|code| out.extend(code.to_be_bytes()));
}

fn optional_values(out: &mut Vec<u8>, values: &[Option<Vec<u8>>]) {
    count(out, values.len());
    for value in values {
        match value {
            None => out.extend((-1_i32).to_be_bytes()),
            Some(bytes) => {
                out.extend(
                    u32::try_from(bytes.len())
                        .expect("test values are below 4 GB")
                        .to_be_bytes(),
                );
                out.extend(bytes);
            }
        }
    }
}

fn named(out: &mut Vec<u8>, tag: u8, kind: u8, name: &[u8]) {
    frame(out, tag, |out| {
        out.push(kind);
        text(out, name);
    });
}
