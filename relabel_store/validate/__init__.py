"""Checking a store against the format: rules, what they find, and the report.

A rule is a function that yields problems, registered by `rule.check` under an id; its docstring is the rule. What it
needs of a store comes as its arguments: the documents of a store (`evidence.Evidence`), neighbouring rows of label maps
(`label_maps.Labels`), lines of the sample table (`sample_rules.Samples`). Ids begin with the subject: RS1 the files and
their commit, RS2 the manifest, RS3 how arrays lie in files, RS4 the sample table, RS5 the journal, RS6 what parts hold.

A level is a `stage.Stage`, run in turn on the same evidence and findings. What has to look at every label map does so
in the one pass over the parts, as a `scan.Scan`: files are read, compared and decoded once for all of them.
"""
