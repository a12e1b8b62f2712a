//! `/api/spec`: the routes of Tuist as OpenAPI 3.0, for generated clients.

use http::{Response, StatusCode};
use serde_json::{Map, Value, json};

use super::{ENTRY_LIMIT, GRADLE_LIMIT, MODULE_LIMIT, PART_LIMIT};
use crate::answer::json as json_response;
use crate::body::Body;
use crate::server::Shared;

/// A parameter: its name, where it is, whether it must be there, what it is.
type Parameter = (&'static str, &'static str, bool, &'static str);
/// An answer: its status, the type of its body ("" for none), what it means.
type Answer = (u16, &'static str, &'static str);

/// One operation.
struct Operation {
    method: &'static str,
    path: &'static str,
    id: &'static str,
    summary: String,
    parameters: &'static [Parameter],
    /// Type of the body of the request, "" for none.
    body: &'static str,
    answers: &'static [Answer],
}

const JSON: &str = "application/json";
const BYTES: &str = "application/octet-stream";
const HANDLES: [Parameter; 2] = [
    ("account_handle", "query", true, "Handle of the account."),
    ("project_handle", "query", true, "Handle of the project."),
];
const MODULE: &[Parameter] = &[
    ("hash", "query", true, "Hash of the module."),
    ("name", "query", true, "Name of the artifact."),
    (
        "cache_category",
        "query",
        false,
        "Category, by default `builds`.",
    ),
];
const EXISTS: &[Parameter] = &[
    ("id", "path", true, "Ignored."),
    ("hash", "query", true, "Hash of the module."),
    ("name", "query", true, "Name of the artifact."),
    (
        "cache_category",
        "query",
        false,
        "Category, by default `builds`.",
    ),
];
const GET_MODULE: &[Parameter] = &[
    ("id", "path", true, "Ignored."),
    ("hash", "query", true, "Hash of the module."),
    ("name", "query", true, "Name of the artifact."),
    (
        "cache_category",
        "query",
        false,
        "Category, by default `builds`.",
    ),
    RANGE,
];
const SESSION: &[Parameter] = &[
    ("hash", "query", true, "Hash of the module."),
    ("name", "query", true, "Name of the artifact."),
    (
        "cache_category",
        "query",
        false,
        "Category, by default `builds`.",
    ),
    ("upload_id", "query", true, "Id of the upload."),
];
const PART: &[Parameter] = &[
    ("hash", "query", true, "Hash of the module."),
    ("name", "query", true, "Name of the artifact."),
    (
        "cache_category",
        "query",
        false,
        "Category, by default `builds`.",
    ),
    ("upload_id", "query", true, "Id of the upload."),
    (
        "part_number",
        "query",
        true,
        "Number of the part, from 1 on.",
    ),
];
const DIGEST: Parameter = (
    "tuist-checksum-sha256",
    "header",
    false,
    "SHA-256 of the body in 64 hexadecimal digits; it is checked, kept, and sent with the artifact.",
);
const RANGE: Parameter = (
    "Range",
    "header",
    false,
    "One range of bytes; with If-Range for an ETag.",
);

/// What all operations below `/api/cache` may answer.
const ALWAYS: [Answer; 6] = [
    (400, JSON, "The query cannot be read, or a handle is empty."),
    (401, JSON, "No credential, or one that is not valid."),
    (402, JSON, "The account has to pay first."),
    (403, JSON, "The credential gives no access to this project."),
    (422, JSON, "A parameter is missing or not valid."),
    (429, JSON, "Too much at once; see Retry-After."),
];
const DOWNLOAD: &[Answer] = &[
    (200, BYTES, "The artifact."),
    (206, BYTES, "The range that was asked for."),
    (404, JSON, "There is none."),
    (416, JSON, "The range lies beyond the end."),
];

fn operations() -> Vec<Operation> {
    let mib = |bytes: u64| bytes >> 20;
    let operation = |method, path, id, summary: &str| Operation {
        method,
        path,
        id,
        summary: summary.into(),
        parameters: &[],
        body: "",
        answers: &[],
    };
    vec![
        Operation {
            parameters: &[("cas_id", "path", true, "Id of the entry.")],
            answers: &[
                (200, JSON, "The entry."),
                (
                    404,
                    JSON,
                    "There is none, or an object that it names is gone.",
                ),
            ],
            ..operation(
                "get",
                "/api/cache/keyvalue/{cas_id}",
                "getKeyValue",
                "Get an entry of the Xcode action cache.",
            )
        },
        Operation {
            body: JSON,
            answers: &[(204, "", "Stored."), (413, JSON, "Too large.")],
            summary: format!(
                "Put an entry of the Xcode action cache, at most {} MiB.",
                mib(ENTRY_LIMIT)
            ),
            ..operation("put", "/api/cache/keyvalue", "putKeyValue", "")
        },
        Operation {
            parameters: &[("id", "path", true, "Id of the object."), RANGE],
            answers: DOWNLOAD,
            ..operation(
                "get",
                "/api/cache/cas/{id}",
                "downloadCASArtifact",
                "Get an object of the Xcode compilation cache.",
            )
        },
        Operation {
            parameters: &[("id", "path", true, "Id of the object."), DIGEST],
            body: BYTES,
            answers: &[
                (204, "", "Stored, or there already."),
                (408, JSON, "The body came too slowly."),
                (413, JSON, "Too large."),
                (500, JSON, "Not stored."),
            ],
            ..operation(
                "post",
                "/api/cache/cas/{id}",
                "uploadCASArtifact",
                "Put an object of the Xcode compilation cache.",
            )
        },
        Operation {
            parameters: EXISTS,
            answers: &[(204, "", "There is one."), (404, "", "There is none.")],
            ..operation(
                "head",
                "/api/cache/module/{id}",
                "moduleCacheArtifactExists",
                "Ask for the artifact of a module.",
            )
        },
        Operation {
            parameters: GET_MODULE,
            answers: DOWNLOAD,
            ..operation(
                "get",
                "/api/cache/module/{id}",
                "downloadModuleCacheArtifact",
                "Get the artifact of a module.",
            )
        },
        Operation {
            parameters: MODULE,
            answers: &[(
                200,
                JSON,
                "`upload_id`; null: there is an artifact already.",
            )],
            summary: format!(
                "Begin to put the artifact of a module, at most {} MiB.",
                mib(MODULE_LIMIT)
            ),
            ..operation(
                "post",
                "/api/cache/module/start",
                "startModuleCacheMultipartUpload",
                "",
            )
        },
        Operation {
            parameters: PART,
            body: BYTES,
            answers: &[
                (204, "", "The part came."),
                (404, JSON, "There is no such upload."),
                (408, JSON, "The body came too slowly."),
                (409, JSON, "The part cannot be replaced."),
                (413, JSON, "Too large."),
                (500, JSON, "Not stored."),
            ],
            summary: format!("Put a part, at most {} MiB.", mib(PART_LIMIT)),
            ..operation(
                "post",
                "/api/cache/module/part",
                "uploadModuleCacheArtifactPart",
                "",
            )
        },
        Operation {
            parameters: SESSION,
            body: JSON,
            answers: &[
                (204, "", "Stored, or there already."),
                (404, JSON, "There is no such upload."),
                (500, JSON, "Not stored."),
            ],
            ..operation(
                "post",
                "/api/cache/module/complete",
                "completeModuleCacheMultipartUpload",
                "Make the artifact of its parts.",
            )
        },
        Operation {
            parameters: &[("cache_key", "path", true, "Key of the entry."), RANGE],
            answers: &[
                (200, BYTES, "The entry."),
                (206, BYTES, "The range that was asked for."),
                (404, "", "There is none."),
                (416, JSON, "The range lies beyond the end."),
            ],
            ..operation(
                "get",
                "/api/cache/gradle/{cache_key}",
                "downloadGradleCacheArtifact",
                "Get an entry of Gradle's build cache.",
            )
        },
        Operation {
            parameters: &[("cache_key", "path", true, "Key of the entry."), DIGEST],
            body: BYTES,
            answers: &[
                (200, "", "There already."),
                (201, "", "Stored."),
                (408, JSON, "The body came too slowly."),
                (413, JSON, "Too large."),
                (500, JSON, "Not stored."),
            ],
            summary: format!(
                "Put an entry of Gradle's build cache, at most {} MiB; Content-Length is required.",
                mib(GRADLE_LIMIT)
            ),
            ..operation(
                "put",
                "/api/cache/gradle/{cache_key}",
                "uploadGradleCacheArtifact",
                "",
            )
        },
        Operation {
            answers: &[(204, "", "Done."), (500, JSON, "Not done.")],
            ..operation(
                "delete",
                "/api/cache/clean",
                "cleanProjectCache",
                "Forget everything of a project.",
            )
        },
    ]
}

/// The document.
fn document(version: &str) -> Value {
    let mut paths = Map::new();
    for operation in operations() {
        let path = paths.entry(operation.path).or_insert_with(|| json!({}));
        path[operation.method] = describe(&operation);
    }
    json!({
        "openapi": "3.0.0",
        "info": { "title": "Cache", "version": version },
        "paths": paths,
        "components": {
            "schemas": {
                "Error": {
                    "type": "object",
                    "properties": { "message": { "type": "string" } },
                    "required": ["message"],
                },
            },
            "securitySchemes": {
                "authorization": { "type": "http", "scheme": "bearer" },
            },
        },
        "security": [{ "authorization": [] }],
    })
}

fn describe(operation: &Operation) -> Value {
    let parameters: Vec<_> = HANDLES
        .iter()
        .chain(operation.parameters)
        .map(|(name, place, required, text)| {
            json!({
                "name": name,
                "in": place,
                "required": required,
                "description": text,
                "schema": { "type": "string" },
            })
        })
        .collect();
    let mut answers = Map::new();
    let all = operation.answers.iter().chain(&ALWAYS);
    for (status, kind, text) in all {
        let content = match *kind {
            "" => json!({}),
            JSON if *status >= 400 => {
                json!({ JSON: { "schema": { "$ref": "#/components/schemas/Error" } } })
            }
            BYTES => json!({ BYTES: { "schema": { "type": "string", "format": "binary" } } }),
            kind => json!({ kind: { "schema": { "type": "object" } } }),
        };
        let answer = json!({ "description": text, "content": content });
        answers.entry(status.to_string()).or_insert(answer);
    }
    let mut described = json!({
        "operationId": operation.id,
        "summary": operation.summary,
        "parameters": parameters,
        "responses": answers,
    });
    if !operation.body.is_empty() {
        let kind = operation.body;
        described["requestBody"] = json!({ "required": true, "content": { kind: {} } });
    }
    described
}

/// The document, to anybody.
pub(crate) fn answer(shared: &Shared) -> Response<Body> {
    json_response(StatusCode::OK, &document(&shared.settings.version))
}

#[cfg(test)]
mod tests {
    use super::super::Route;
    use super::*;

    #[test]
    fn the_document() {
        insta::assert_json_snapshot!(document("VERSION"));
    }

    /// Every operation is a route, and no route is left out.
    #[test]
    fn operations_are_routes() {
        let mut routes = Vec::new();
        for operation in operations() {
            let method = operation.method.to_uppercase();
            let method = http::Method::from_bytes(method.as_bytes()).unwrap();
            let path = operation.path.strip_prefix("/api/cache/").unwrap();
            let path = path.replace(['{', '}'], "");
            let route = Route::of(&method, &path).map(|route| format!("{route:?}"));
            routes.push(route.unwrap());
        }
        routes.sort();
        routes.dedup();
        // As many as `Route` has variants.
        assert_eq!(routes.len(), 12);
    }
}
