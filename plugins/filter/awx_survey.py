# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Filter lowtide.ops.awx_survey."""

from __future__ import annotations

DOCUMENTATION = r"""
name: awx_survey
short_description: "[INTERNAL] The survey of an AWX template, from the options of an argument spec"
version_added: 0.1.0
author:
  - The lowtide.ops team (@lowtide-ops)
description:
  - For the role P(lowtide.ops.awx#role) only; what it takes and returns may change at any time.
options:
  _input:
    description: The options of an entry point in C(meta/argument_specs.yml), by name.
    type: dict
    required: true
  questions:
    description: Names of options, or dictionaries with C(variable) and what differs from the option.
    type: list
    elements: raw
    required: true
  title:
    description: Name of the survey.
    type: str
    required: true
  choices:
    description: Choices of options that have none of their own, by name.
    type: dict
    default: {}
positional: questions, title, choices
"""

EXAMPLES = r"""
- name: Show the survey
  ansible.builtin.debug:
    msg: "{{ options | lowtide.ops.awx_survey(['window_only'], 'window', {'window_only': ['backup']}) }}"
  vars:
    specs: "{{ lookup('ansible.builtin.file', 'meta/argument_specs.yml') | from_yaml }}"
    options: "{{ specs.argument_specs.open.options }}"
"""

RETURN = r"""
_value:
  description: What the module awx.awx.job_template takes as C(survey_spec); empty where nothing is asked.
  type: dict
"""

import typing as t

from ansible.errors import AnsibleFilterError

from ansible_collections.lowtide.ops.plugins.module_utils._common.errors import OpsError
from ansible_collections.lowtide.ops.plugins.plugin_utils._awx import make_survey


def survey(
    options: t.Mapping[str, t.Any],
    questions: t.Sequence[t.Any],
    title: str,
    choices: t.Mapping[str, t.Any] | None = None,
) -> dict[str, t.Any]:
    """Return the survey. What AWX would refuse fails the task with object, problem and next step."""
    try:
        return make_survey(options, questions, title, choices or {})
    except OpsError as error:
        raise AnsibleFilterError(str(error)) from error


class FilterModule:
    """What Ansible looks for."""

    def filters(self) -> dict[str, t.Callable[..., t.Any]]:
        """Return the filter of this file."""
        return {"awx_survey": survey}
