# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# `make` says what there is. LOWTIDE_LAB names the lab (default: main), LOWTIDE_CACHE the place of downloads and builds.

LAB := tests/lab/lab
export LOWTIDE_CACHE ?= /var/cache/lowtide-lab
CACHE := $(LOWTIDE_CACHE)
PYTHON := $(CACHE)/venv/bin/python
DEMO_COMPONENTS := feature_service s3
# What `make test` runs, in two lanes (tests/all.py): what needs the lab, and what needs none, then who is first takes
# molecule. `system` is one thing at a time and leaves a core to the other lane. The lab goes down where nobody would use it.
WITH_LAB := lab-up system integration molecule $(if $(filter true,$(CI)),lab-down)
WITHOUT_LAB := lint unit window lab-up molecule

# Timings are those of a user, whose Python keeps its bytecode.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help demo test faults lint unit window integration system molecule lab-up lab-down lab-facts lab-shell lab-run lock tools

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: ## a lab of real servers, and one whole maintenance window through it; BAD_IMAGE=1 with a release that is undone
	@$(LAB) up $(DEMO_COMPONENTS)
	@$(PYTHON) tests/lab/demo.py $(if $(BAD_IMAGE),-e demo_bad_image=true)

test: tools ## everything that CI runs; the lab stays up afterwards, with CI=true it is taken down
	@tests/all.py "$(WITH_LAB)" "$(WITHOUT_LAB)"

faults: tools ## what is a sample in `make test`, whole: each kill point, size and version of ansible-core (hours)
	@LOWTIDE_EXHAUSTIVE=1 tests/all.py "lab-up system integration" "window unit"

lint: tools ## all static checks (tests/lint.py --list names them)
	@$(PYTHON) tests/lint.py

unit: tools ## tests that need no server
	@$(PYTHON) -m pytest -q -n 3 tests/unit

window: tools ## the fast window: real ansible-playbook runs of trivial steps, killed and run again (no server)
	@$(PYTHON) -m pytest -q -n 2 --durations=5 tests/window

integration: ## tests against the running lab, four at a time (make lab-up first)
	@$(LAB) run -- $(PYTHON) -m pytest -q -n 4 --dist loadfile --no-loadscope-reorder --durations=10 -m "not alone" \
		tests/integration

system: ## whole windows, kills and failovers on the running lab, one at a time (make lab-up first)
	@$(LAB) run -- $(PYTHON) -m pytest -q --durations=10 -m alone tests/integration tests/faults

molecule: ## every role on the running lab (make lab-up first)
	@$(LAB) run -- $(PYTHON) tests/scenarios.py

lab-up: ## install and start all servers; COMPONENTS="kafka s3" only these
	@$(LAB) up $(COMPONENTS)

lab-down: ## stop them and leave nothing behind
	@$(LAB) down

lab-facts: ## endpoints, credential files and identities of the running lab, as JSON
	@$(LAB) facts

lab-shell: ## a shell inside the lab's network
	@$(LAB) shell

lab-run: ## CMD="..." inside the lab's network
	@$(LAB) run -- $(CMD)

tools: ## the Python environment of tests/requirements-test.txt, and one for each other version of ansible-core
	@$(LAB) tools

lock: tools ## renew the locks of Python requirements from their .in files
	@$(LAB) lock
