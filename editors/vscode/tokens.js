// Prints the tokens of programs and their scopes as JSON, by the engine that colours them in Visual Studio Code:
//     node tokens.js FILE...

const fs = require("fs");
const path = require("path");
const oniguruma = require("vscode-oniguruma");
const { INITIAL, Registry } = require("vscode-textmate");

async function main(files) {
  const wasm = path.join(path.dirname(require.resolve("vscode-oniguruma")), "onig.wasm");
  await oniguruma.loadWASM(fs.readFileSync(wasm).buffer);
  const text = fs.readFileSync(path.join(__dirname, "syntaxes", "tdsl.tmLanguage.json"), "utf-8");
  const registry = new Registry({
    onigLib: Promise.resolve({
      createOnigScanner: (patterns) => new oniguruma.OnigScanner(patterns),
      createOnigString: (string) => new oniguruma.OnigString(string),
    }),
    loadGrammar: async () => JSON.parse(text),
  });
  const grammar = await registry.loadGrammar("source.tdsl");
  console.log(JSON.stringify(files.map((file) => tokens(grammar, fs.readFileSync(file, "utf-8")))));
}

function tokens(grammar, text) {
  const found = [];
  let stack = INITIAL;
  for (const line of text.split("\n")) {
    const result = grammar.tokenizeLine(line, stack);
    stack = result.ruleStack;
    for (const { startIndex, endIndex, scopes } of result.tokens) {
      const word = line.slice(startIndex, endIndex).trim();
      if (word) found.push([word, scopes.at(-1)]);
    }
  }
  return found;
}

main(process.argv.slice(2));
