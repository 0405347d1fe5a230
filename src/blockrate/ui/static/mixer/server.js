// What the server hears of the faders: methods of block_mixer.js.

export default {
  changes(start) {
    const pairs = this.vals.map((value, i) => [i, value]);
    return pairs.filter(([i, value]) => value !== start[i]);
  },
  // cleared: the gesture has ended a selection too
  commit(start, merge, cleared = false) {
    const changed = this.changes(start);
    if (!changed.length) {
      if (cleared) this.select([]);
      return;
    }
    const named = changed.map(([i, value]) => [this.names[i], value]);
    const changes = Object.fromEntries(named);
    this.can = [true, false];
    this.$emit("commit", { changes, merge, cleared, version: this.version });
  },
  // k: 0 undoes, 1 does again
  step(k) {
    if (!this.can[k]) return;
    // what is undone can be redone, before the server says so
    this.can = this.can.map((can, other) => can || other !== k);
    this.$emit(["undo", "redo"][k]);
  },
  choose(indices) {
    this.chosen = indices.filter((i) => !this.isOff(i));
    this.turn += 1;
  },
  select(indices) {
    this.choose(indices);
    if (this.chosen.length > 1) this.tell(`${this.chosen.length} selected`);
    const names = this.chosen.map((i) => this.names[i]);
    this.$emit("select", names);
  },
  targets(i) {
    return this.chosen.includes(i) ? this.chosen : [i];
  },
  copy(words) {
    // there is no clipboard without https
    const written = navigator.clipboard?.writeText(words) ?? Promise.reject();
    written.then(
      () => this.$emit("copied", ""),
      () => this.$emit("copied", words),
    );
  },
};
