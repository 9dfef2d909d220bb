// Starts the language server, `tdsl lsp`, and hands it the programs that are open.

const { commands, window, workspace } = require("vscode");
const { LanguageClient } = require("vscode-languageclient/node");

let client;

function start() {
  const [command, ...args] = workspace.getConfiguration("tdsl").get("command");
  const folder = workspace.workspaceFolders?.[0]?.uri.fsPath;
  const server = { command, args, options: { cwd: folder } };
  client = new LanguageClient("tdsl", "tdsl", server, {
    documentSelector: [{ language: "tdsl" }],
    // Data, and programs that others import: what is said of an open file depends on them.
    synchronize: { fileEvents: workspace.createFileSystemWatcher("**/*.{model,csv,parquet,npz,npy,txt,gz}") },
  });
  return client.start().catch((error) => {
    const cure = "Install it with pip install 'tdsl[editor]', or set tdsl.command.";
    window.showErrorMessage(`tdsl: the language server does not start. ${cure} (${error.message})`);
  });
}

exports.activate = (context) => {
  const restart = async () => {
    await client?.stop().catch(() => undefined);
    await start();
  };
  context.subscriptions.push(commands.registerCommand("tdsl.restart", restart));
  return start();
};

exports.deactivate = () => client?.stop();
