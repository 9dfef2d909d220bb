"""What is typed for a keyword: `$1` and so on are where the cursor goes."""

from __future__ import annotations

from collections.abc import Mapping

SNIPPETS: Mapping[str, Mapping[str, str]] = {
    "top": {
        "module": "module ${1:Name}(${2}) {\n    ${3}\n\n    forward(${4:x: float[B, D]}) -> ${5:float[B, D]} {\n"
        "        return ${0:x}\n    }\n}",
        "fn": "fn ${1:name}(${2:x: float[B, D]}) -> ${3:float[B, D]} {\n    return ${0:x}\n}",
        "const": "const ${1:NAME} = ${0:1}",
        "data": 'data ${1:Name} {\n    source = ${2:csv("data.csv")}\n    split  = random(train=0.8, val=0.1, '
        'test=0.1)\n\n    field ${3:x}: ${4:float[]} = column("${5:x}")\n}',
        "train": "train ${1:name} {\n    model = ${2}\n    data  = ${3}\n\n    loss(batch) {\n        return ${0}\n"
        "    }\n\n    optimizer  = AdamW(lr=1e-3)\n    epochs     = 10\n    batch_size = 64\n}",
        "evaluate": "evaluate ${1:name} {\n    compare(batch) { return ${2:model(batch.x)}, ${3:batch.y} }\n"
        "    metrics = [${0:Accuracy()}]\n}",
        "import": 'import "${0:other.model}"',
        "extern": 'extern module ${1:Name}(${2}) : ${3:float[B, D]} -> ${4:float[B, D]} = "${0:package.module:Class}"',
    },
    "members": {
        "forward": "forward(${1:x: float[B, D]}) -> ${2:float[B, D]} {\n    return ${0:x}\n}",
        "param": "param ${1:weight}: [${2:dim}] = ${0:zeros()}",
        "buffer": "buffer ${1:scale}: [${2:dim}] = ${0:ones()}",
    },
    "body": {
        "return": "return $0",
        "for": "for ${1:block} in ${2:blocks} {\n    $0\n}",
        "if": "if ${1:training} {\n    $0\n}",
        "track": "track ${1:name} = $0",
        "assume": "assume ${0:B % 8 == 0}",
        "no_grad": "no_grad {\n    $0\n}",
    },
    "data": {
        "field": 'field ${1:x}: ${2:float[]} = ${0:column("x")}',
        "transform": "transform ${1:x} = [$0]",
    },
    "run": {
        "loss": "loss(batch) {\n    return $0\n}",
        "compare": "compare(batch) { return ${1:model(batch.x)}, ${0:batch.y} }",
        "predict": "predict(batch) { return ${0:model(batch.x)} }",
        "checkpoint": 'checkpoint { best = "${0:val/loss}" }',
        "validate": "validate { every = ${0:1} }",
        "logging": "logging { every = ${0:10} }",
        "early_stopping": 'early_stopping { monitor = "val/loss", patience = ${0:3} }',
        "group": 'group "${1:*.bias}" { ${0:weight_decay = 0} }',
    },
}
