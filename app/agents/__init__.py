"""WHO ANSWERS: data only. One Markdown file an agent; `reader` parses and checks them, `controls` gives each its controls.

`README.md` and `house-rules.md` are no agents. An adopter keeps agents in a folder of their own and names it in AGENTS_DIR; the
house rules stay these, because they hold for whoever answers.
"""
