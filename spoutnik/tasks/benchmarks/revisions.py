"""Which commit of a benchmark's data set is read from the hub: the one that several public evaluations pin.

None of these was fetched from here (docs/data.md, "Benchmarks of the hub"). Of data sets that are missing no pin was seen, and
the newest is read.
"""

REVISIONS = {
    "openai/gsm8k": "740312add88f781978c0658806c59bc2815b9866",
    "HuggingFaceH4/MATH-500": "6e4ed1a2a79af7d8630a6b768ec859cb5af4d3be",
    "DigitalLearningGmbH/MATH-lighteval": "f06834690385b29df31ccc717250746a3ba0322b",
    "HuggingFaceH4/aime_2024": "2fe88a2f1091d5048c0f36abc874fb997b3dd99a",
    "math-ai/aime25": "563bb8404243c5f09de6ec262f2db674fe5bce9b",
    "ChilleD/SVAMP": "5e0bf1e5e7c0e9c4bc39180d224f41f3f801b7ef",
    "cais/mmlu": "c30699e8356da336a370243923dbaf21066bb9fe",
    "Idavidrein/gpqa": "633f5ee89ab8ad4522a9f850766b73f62147ffdd",
    "truthfulqa/truthful_qa": "741b8276f2d1982aa3d5b832d3ee81ed3b896490",
    "lukaemon/bbh": "982bb89fd79532a8ac676a61fc42eb1aeec63f99",
    "openai/openai_humaneval": "7dce6050a7d6d172f3cc5c32aa97f52fa1a2e544",
    "google-research-datasets/mbpp": "4bb6404fdc6cacfda99d4ac4205087b89d32030c",
    "livecodebench/code_generation_lite": "0fe84c3912ea0c4d4a78037083943e8f0c4dd505",
    "google/IFEval": "966cd89545d6b6acfd7638bc708b98261ca58e84",
}
