//! Metro's HttpStore.

use super::{command, daemon, files, installed, run};
use crate::daemon::TOKEN;

#[tokio::test(flavor = "multi_thread")]
#[ignore = "make test-clients installs it"]
async fn uploads_and_hits() {
    let daemon = daemon().await;
    let home = tempfile::tempdir().unwrap();
    let module = installed("npm/node_modules/metro-cache");
    let script = format!(
        "const {{HttpStore}} = require({:?});\n\
         const store = new HttpStore({{endpoint: '{}', headers: {{authorization: 'Bearer {TOKEN}'}}}});\n\
         const key = Buffer.from('00ff00ff', 'hex');\n\
         (async () => {{\n\
         if (await store.get(key) !== null) throw new Error('it is there already');\n\
         await store.set(key, {{code: 'built'}});\n\
         const got = await store.get(key);\n\
         if (got.code !== 'built') throw new Error(JSON.stringify(got));\n\
         process.exit(0);\n\
         }})();\n",
        module,
        daemon.base()
    );
    files(home.path(), &[("a.js", &script)]);
    run(command("node", home.path()).arg("a.js")).await;
    assert_eq!(daemon.stored("metro").await, 1.0);
}
